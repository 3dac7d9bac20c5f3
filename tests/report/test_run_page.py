"""The runs of a page: the sources of a run, and the runs that depend on the same training."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.runs import Run
from learn_spark.report.road import road_of


def run(
    number: int,
    job: str,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    status: str = "done",
    message: str = "",
) -> Run:
    started = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=number)
    return Run(f"{number}-{job}", job, status, "c", "v", inputs, outputs, {}, 1.0, started, message or None)


RUNS = [
    run(1, "ingest", {}, {"items": "0", "interactions": "0"}),
    run(2, "histories", {"interactions": "0"}, {"user_histories": "0"}),
    run(3, "train", {"user_histories": "0"}, {"models/a": "x"}),
    run(4, "evaluate", {"model": "a", "user_histories": "0"}, {"evaluations": "0"}),
    # A second training on the same histories, evaluated twice and released; and a day later more events.
    run(5, "train", {"user_histories": "0"}, {"models/b": "y"}),
    run(6, "evaluate", {"model": "b", "user_histories": "0"}, {"evaluations": "1"}),
    run(7, "publish", {"model": "b", "user_histories": "0"}, {"item_features": "0", "releases": "1"}),
    run(8, "ingest", {}, {"items": "0", "interactions": "1"}),
    run(9, "histories", {"interactions": "1"}, {"user_histories": "1"}),
    run(10, "export_index", {"item_features": "0", "releases": "1"}, {"indexes/r": "z"}),
    run(11, "evaluate", {"model": "b", "user_histories": "1"}, {"evaluations": "2"}),
    run(12, "publish", {"model": "b", "user_histories": "1"}, {}, "refused", "the gate failed"),
    run(13, "report", {"run:train": "5-train", "run:evaluate": "6-evaluate"}, {"reports/index.html": "h"}),
]


def ids(run_id: str | None) -> list[int]:
    return [int(run.run_id.split("-")[0]) for run in road_of(RUNS, run_id).runs]


def test_without_an_id_it_is_the_newest_of_every_stage_and_what_failed_since() -> None:
    road = road_of(RUNS)
    assert ids(None) == [8, 9, 5, 11, 7, 10]
    assert [later.run_id for later in road.later] == ["12-publish"]
    assert road.model_id == "b"
    # A failure that a later run has made good is no news.
    mended = [*RUNS, run(14, "publish", {"model": "b"}, {"item_features": "1"})]
    assert road_of(mended).later == ()


@pytest.mark.parametrize(
    ("run_id", "expected"),
    [
        # The first training's road, with the histories that it read and the evaluation of its own model.
        ("3-train", [1, 2, 3, 4]),
        ("4-evaluate", [1, 2, 3, 4]),
        # The newest evaluation of the model read newer histories than the model did; the release read the older.
        ("5-train", [1, 2, 5, 11, 7, 10]),
        ("6-evaluate", [1, 2, 5, 6, 7, 10]),
        ("11-evaluate", [8, 9, 5, 11, 7, 10]),
        ("10-export_index", [1, 2, 5, 11, 7, 10]),
        # A refused run has a road, too.
        ("12-publish", [8, 9, 5, 11, 12, 10]),
        # Nothing was trained on this delivery itself but what was evaluated and refused.
        ("9-histories", [8, 9, 5, 11]),
        ("13-report", [1, 2, 5, 6, 7, 10]),
    ],
)
def test_a_run_has_what_it_read_and_what_came_of_the_same_model(run_id: str, expected: list[int]) -> None:
    assert ids(run_id) == expected
    assert road_of(RUNS, run_id).chosen == next(run for run in RUNS if run.run_id == run_id)


def test_without_a_run_and_without_this_run() -> None:
    with pytest.raises(LearnSparkError, match="no stage has run in this workspace yet"):
        road_of([])
    with pytest.raises(LearnSparkError, match=r"no run 'nothing' of 13; the newest are 12-publish \(publish\), 11-"):
        road_of(RUNS, "nothing")
