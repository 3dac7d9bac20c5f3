"""Status, lineage and forecasts, from planted runs and tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from learn_spark.core.console import Reporter
from learn_spark.core.errors import SettingsError
from learn_spark.core.stages.registry import find_stage
from learn_spark.core.tables.runs import Run, record
from learn_spark.data.text.templates import template
from learn_spark.encoder.identity import identify
from learn_spark.pipeline.backfill import backfill, days_between
from learn_spark.pipeline.forecast import forecast, texts_to_encode
from learn_spark.pipeline.lineage import Artifact
from learn_spark.pipeline.lineage_tree import show_lineage
from learn_spark.pipeline.provenance import Provenance
from learn_spark.pipeline.runner import run_stages
from learn_spark.pipeline.summary import age, show_places, show_status
from tests.report.planted import FIRST_DAY, plant
from tests.report.workspace import N_ITEMS, N_USERS, TEMPLATE, Planted


@pytest.fixture
def world(tmp_path: Path) -> Planted:
    """The planted workspace of tests/report/workspace.py: ingest, histories, train, evaluate, publish."""
    return Planted(tmp_path)


def squeezed(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_status_lists_version_rows_age_run_and_gate_of_each_table(
    world: Planted, capsys: pytest.CaptureFixture[str]
) -> None:
    show_status(world.workspace, Reporter())
    lines = squeezed(capsys.readouterr().out)
    shown = {line.split()[0]: line for line in lines if line}
    assert shown["items"].startswith(f"items 0 {N_ITEMS} ")
    # Evaluated twice; the newer results have one warning.
    assert shown["items"].endswith(f"ingest {world.runs['ingest']} (done) passed, 1 warnings")
    assert shown["user_histories"].startswith(f"user_histories 0 {N_USERS} ")
    assert shown["user_histories"].endswith("(done) not evaluated")
    assert shown["embedding_spaces"].endswith("no rules")
    assert "item_text never run" in lines
    assert [age(timedelta(seconds=s)) for s in (-3, 59, 60, 7200, 200_000)] == ["0 s", "59 s", "1 min", "2 h", "2 d"]


def test_the_places_at_the_end_of_a_run_have_their_ages(world: Planted, capsys: pytest.CaptureFixture[str]) -> None:
    at = datetime.now(UTC) - timedelta(days=7, hours=1)
    record(world.workspace, Run("r", "report", "done", "c", "v", {}, {"reports/index.html": "h"}, {}, 1.0, at))
    show_places(world.settings, world.workspace, Reporter())
    (report,) = (line for line in squeezed(capsys.readouterr().out) if line.startswith("report"))
    assert report == f"report {world.workspace.root}/reports/index.html (written 7 d ago by learn-spark report)"


def test_lineage_goes_up_to_the_raw_files_and_down_to_what_was_made(
    world: Planted, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(job: str, inputs: dict[str, str], outputs: dict[str, str], hours: int) -> None:
        at = FIRST_DAY + timedelta(days=1, hours=hours)
        record(world.workspace, Run(f"{job}-2", job, "done", "c", "v", inputs, outputs, {}, 1.0, at))

    run("ingest", {"files:/data/shop": "f"}, {"items": "3", "item_index": "2", "interactions": "1"}, 0)
    files = [
        {"file": f"day{n}.csv", "state": "s", "reader": "r", "rows": 10, "refused": n, "run_id": "ingest-2"}
        for n in range(7)
    ]
    plant(world.workspace, "raw_files", [{**file, "read_at": FIRST_DAY} for file in files])
    # It wrote nothing anew but its histories: the index was there.
    run("histories", {"interactions": "1", "item_index": "2"}, {"user_histories": "5", "item_index": "2"}, 1)
    run("train", {"user_histories": "5"}, {"models/new": "h"}, 2)
    run("publish", {"user_histories": "5", "model": "new"}, {"user_features": "1", "releases": "9"}, 3)
    for version in ("0", "1", "2"):
        assert plant(world.workspace, "interactions", []) == version
    show_lineage(world.workspace, "interactions@1", Reporter())
    assert squeezed(capsys.readouterr().out) == [
        "interactions @ 1: made from",
        "interactions @ 1, by ingest (ingest-2)",
        *(f"day{n}.csv (10 rows, {n} refused)" for n in range(5)),
        "and 2 more files",
        "raw files /data/shop",
        "in all from 7 raw files: day0.csv, day1.csv, day2.csv, day3.csv, day4.csv and 2 more (--json lists all)",
        "interactions @ 1: read by",
        "histories (histories-2) -> user_histories @ 5",
        "train (train-2) -> model @ new",
        "publish (publish-2) -> user_features @ 1, releases @ 9",
        "publish (publish-2) -> user_features @ 1, releases @ 9, as above",
    ]
    show_lineage(world.workspace, "model@new", Reporter())
    lines = squeezed(capsys.readouterr().out)
    assert lines[1:4] == [
        "model @ new, by train (train-2)",
        "user_histories @ 5, by histories (histories-2)",
        "interactions @ 1, by ingest (ingest-2)",
    ]
    # A model and the features that it computed have the files of the histories.
    for what in (Artifact("model", "new"), Artifact("user_features", "1")):
        assert [use.file for use in Provenance(world.workspace).raw_files(what)] == [f"day{n}.csv" for n in range(7)]
    # A version between two that runs left was written by the later of them.
    show_lineage(world.workspace, "interactions@0", Reporter())
    assert "interactions @ 0, by ingest (ingest-2)" in squeezed(capsys.readouterr().out)
    show_lineage(world.workspace, "interactions", Reporter())
    lines = squeezed(capsys.readouterr().out)
    # Rows that no run appended, and below them the rows that were there.
    assert lines[1:3] == [
        "interactions @ 2, written by no run of this workspace",
        "interactions @ 1, by ingest (ingest-2)",
    ]
    assert lines[-2:] == ["interactions @ 2: read by", "nothing yet"]
    for what, match in (
        ("interactions@7", "interactions has the versions 0 to 2, not '7'"),
        ("nothing", "there is no table 'nothing'; give model@ID or one of ad_metrics, ad_scores"),
        ("quarantine", "there is no table quarantine"),
        ("model@other", "no run of .* wrote a model 'other'"),
    ):
        with pytest.raises(SettingsError, match=match):
            show_lineage(world.workspace, what, Reporter())


def test_a_dry_run_says_what_is_read_encoded_and_how_long_it_takes(
    world: Planted, capsys: pytest.CaptureFixture[str]
) -> None:
    (llm := Path(world.settings.encoder.model)).mkdir()
    (llm / "model.safetensors").write_bytes(b"weights")
    settings, workspace = world.settings, world.workspace
    version = template(settings.text.template).key
    texts = [("a", "k1"), ("b", "k1"), ("c", "k2"), ("d", "k3")]
    plant(
        workspace,
        "item_text",
        [{"item_id": i, "template_version": version, "text": "t", "text_key": key} for i, key in texts],
    )
    rows = [(identify(settings.encoder).key, "k2"), ("another", "k3")]
    plant(
        workspace,
        "text_embeddings",
        [{"encoder_key": e, "text_key": t, "embedding": [1.0], "n_tokens": 1} for e, t in rows],
    )
    # Equal texts are one; the planted texts of another template are not asked for.
    assert texts_to_encode(settings, workspace) == 2 + N_ITEMS * (version == TEMPLATE)
    stage = find_stage("embed_items")
    assert forecast(stage, settings, workspace)[-1].endswith(
        "texts; time unknown, because this workspace has no earlier run"
    )
    done = Run("e", "embed_items", "done", "c", "v", {"item_text": "0"}, {}, {"encoded": 50}, 100.0, FIRST_DAY)
    record(workspace, done)
    left = texts_to_encode(settings, workspace)
    assert forecast(stage, settings, workspace)[-1] == (
        f"encodes {left} texts in about {2 * left} s, at the rate of the last run (0.5 texts/s)"
    )
    # Histories took 40 s on the rows of then; there are twice as many now.
    plant(workspace, "interactions", [])
    record(
        workspace,
        Run(
            "h",
            "histories",
            "done",
            "c",
            "v",
            {"item_index": "0", "interactions": "0"},
            {},
            {},
            40.0,
            FIRST_DAY + timedelta(days=9),
        ),
    )
    plant(workspace, "item_index", [{"item_id": f"n{n}", "item_index": 100 + n} for n in range(N_ITEMS)])
    shown = forecast(find_stage("histories"), settings, workspace)
    assert f"item_index @ 1 ({2 * N_ITEMS} rows)" in shown[0]
    assert shown[2] == "time   about 80 s (the last run took 40 s)"
    before = {path for path in workspace.root.rglob("*") if path.is_file()}
    run_stages(["histories"], settings, console=Reporter(), dry_run=True)
    out = capsys.readouterr().out
    assert "histories: would run" in out
    assert {path for path in workspace.root.rglob("*") if path.is_file()} == before


def test_the_days_of_a_backfill(world: Planted, capsys: pytest.CaptureFixture[str]) -> None:
    assert days_between("2024-02-27", "2024-03-02", 2) == ["2024-02-27", "2024-02-29", "2024-03-02"]
    with pytest.raises(SettingsError, match="--to 2024-02-01 is before --from 2024-02-02"):
        days_between("2024-02-02", "2024-02-01", 1)
    with pytest.raises(SettingsError, match="must be days such as 2024-01-31"):
        days_between("yesterday", "2024-02-01", 1)
    backfill(lambda more: world.settings, ["2024-01-01", "2024-01-02"], console=Reporter(), dry_run=True)
    lines = squeezed(capsys.readouterr().out)
    assert lines[0] == "2024-01-01: histories, train, publish, one backfilled release as of 2024-01-01"
    assert lines[1] == "2024-01-02: histories, publish, one backfilled release as of 2024-01-02"
    # Planted runs took 1.5 s each: two days of two stages, a training, and the histories once more.
    assert lines[3] == "time: about 9 s, from the duration of the last runs"
