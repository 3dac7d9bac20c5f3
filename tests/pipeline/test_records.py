"""What runs leave beside tables: old by the recorded time of its run, else by the storage's, and kept while in use."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from learn_spark.core.quality.data_docs import page_path
from learn_spark.core.storage.path import StoragePath, storage_path
from learn_spark.core.tables.runs import Run
from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.records import Limits, old_records, runs_in_use

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def run_of(run_id: str, job: str, days: int, inputs: dict[str, str], outputs: dict[str, str]) -> Run:
    return Run(run_id, job, "done", "c", "v", inputs, outputs, {}, 1.0, NOW - days * DAY)


# The kept model was trained on what "assembled" wrote.
RUNS = [
    run_of("assembled", "histories", 400, {}, {"user_histories": "1"}),
    run_of("trained", "train", 390, {"user_histories": "1"}, {"models/kept": "h"}),
    run_of("forgotten", "train", 380, {}, {"models/gone": "h"}),
    run_of("assembled-again", "histories", 300, {}, {"user_histories": "2"}),
    run_of("young", "train", 3, {}, {"models/gone-too": "h"}),
    run_of("trained-last", "train", 2, {}, {"models/last": "h"}),
]


def test_runs_in_use_are_the_newest_ones_those_of_kept_models_and_what_they_came_from() -> None:
    newest = {"assembled-again", "trained-last"}
    assert runs_in_use(RUNS, (), ()) == newest
    assert runs_in_use(RUNS, (), ["kept"]) == newest | {"trained", "assembled"}
    assert runs_in_use(RUNS, ["forgotten", "of no table"], ()) == newest | {"forgotten", "of no table"}


def test_old_records_are_found_in_a_folder_and_at_an_address(place: StoragePath, tmp_path: Path) -> None:
    workspace, quality = Workspace(place, tmp_path / "scratch"), place / "reports" / "quality"
    for run in ("assembled", "forgotten", "young"):
        (place / "reports" / f"{run}.html").write_text("page")
        (place / "runs" / run / "settings.yaml").write_text("settings")
        (place / "rankings" / run / "manifest.json").write_text("12345")
        (place / "rankings" / run / "model.pt").write_text("123")
    for name in ("index.html", "settings.yaml", "button.html", "button.json"):
        (place / "reports" / name).write_text("page")
    for version in (1, 2):
        page_path(quality, "items", f"items @ {version}").write_text("page")
    (quality / "index.html").write_text("pages")
    (place / "studies" / "beauty" / "study.json").write_text("{}")
    scratch = workspace.scratch
    for name in ("cache/item_matrix/a/rows", "cache/item_matrix/b/rows", "searches/k/study.db", "logs/spark.log"):
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
        (scratch / name).write_bytes(b"0123456789")
    os.utime(scratch / "cache/item_matrix/a/rows", (1e9, 1e9))

    def old(limits: Limits) -> dict[str, int]:
        found = old_records(workspace, RUNS, runs_in_use(RUNS, (), ["kept"]), {"items": ["items @ 2"]}, limits)
        places = (f"{storage_path(scratch)}/", f"{place}/")
        return {one.path.removeprefix(places[0]).removeprefix(places[1]): one.size for one in found}

    # All files are of now. What a run left is as old as the run.
    by_run = {"reports/forgotten.html": 4, "runs/forgotten": 8, "rankings/forgotten": 8}
    assert old(Limits(NOW - 30 * DAY, NOW - 30 * DAY)) == by_run | {"cache/item_matrix/a": 10}
    # In a month all is old; what is in use, the newest report and the newest copy in a cache stay.
    young = {"reports/young.html": 4, "runs/young": 8, "rankings/young": 8}
    page = page_path(quality, "items", "items @ 1").removeprefix(f"{place}/")
    others = {"reports/button.html": 4, "reports/button.json": 4, page: 4, "studies/beauty": 2, "searches/k": 10}
    in_a_month = old(Limits(NOW + 30 * DAY, NOW + 30 * DAY))
    assert in_a_month == by_run | young | others | {"logs/spark.log": 10, "cache/item_matrix/a": 10}
