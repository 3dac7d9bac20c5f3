"""What runs leave beside tables: old by the recorded time of its run, else by the storage's, and kept while in use."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from learn_spark.core.console import Reporter
from learn_spark.core.quality.data_docs import page_path
from learn_spark.core.settings import load_settings
from learn_spark.core.storage.path import StoragePath, storage_path
from learn_spark.core.tables.runs import Run, all_runs, record
from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.records import Limits, old_records, runs_in_use
from learn_spark.pipeline.runner import run_stages
from tests.world import write_config

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


def test_rankers_that_the_newest_run_scores_with_are_in_use() -> None:
    """A source of the same stage: rank_ads saved the rankers with which a later rank_ads scored."""
    saved = run_of("saved", "rank_ads", 300, {"exposures": "1"}, {"rankings/saved": "h"})
    logged = run_of("logged", "exposures", 301, {}, {"exposures": "1"})
    scored = run_of("scored", "rank_ads", 2, {"exposures": "9", "rankings/saved": "h"}, {"ad_scores": "3"})
    assert runs_in_use([logged, saved, scored], (), ()) == {"logged", "saved", "scored"}


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


def test_a_failed_run_leaves_neither_its_page_nor_its_rankers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each further try on a full disk would fill what became free."""
    config = write_config(tmp_path / "shop.yaml", raw=tmp_path / "raw", workspace=tmp_path / "w", model=tmp_path)
    reports, rankers = tmp_path / "w" / "reports", tmp_path / "w" / "rankings"
    for run in ("before", "this"):
        (rankers / run).mkdir(parents=True)
        (rankers / run / "manifest.json").write_text("{}")
    # The stage writes its pages, and then fails: a folder is in the place of its last file.
    (reports / "settings.yaml").mkdir(parents=True)
    (reports / "before.html").write_text("page")
    record(Workspace.open(str(tmp_path / "w")), RUNS[0])
    monkeypatch.setattr("learn_spark.pipeline.runner.new_run_id", lambda: "this")
    with pytest.raises(OSError, match=r"settings\.yaml"):
        run_stages(["report"], load_settings(config), console=Reporter(quiet=True))
    assert sorted(path.name for path in reports.iterdir()) == ["before.html", "index.html", "settings.yaml"]
    assert [path.name for path in rankers.iterdir()] == ["before"]
    last = all_runs(Workspace.open(str(tmp_path / "w")))[-1]
    assert (last.run_id, last.status) == ("this", "failed")
