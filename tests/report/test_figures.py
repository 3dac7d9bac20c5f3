"""The page's figures are the tables' own: intervals, the order of slices, what a second evaluation found done."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from learn_spark.core.tables.runs import Run
from learn_spark.core.tables.workspace import Workspace
from learn_spark.evaluation.results import metric_rows
from learn_spark.report.figures import OfferedLine, metric_tables, slice_plots, wilson
from learn_spark.report.page import render
from tests.report.planted import FIRST_DAY, plant, release_row
from tests.report.workspace import Planted

HELD = {"run_id": "1", "model_id": "m", "users": 100}
TABLES = {"user_histories": "3", "item_index": "1"}


def evaluation(run_id: str, model: str = "m", settings: str = "c", **tables: str) -> Run:
    inputs = {**TABLES, **tables, "model": model}
    return Run(run_id, "evaluate", "done", settings, "v", inputs, {}, {}, 1.0, FIRST_DAY)


def row(method: str, metric: str, value: float, split: str = "test", **more: Any) -> dict[str, Any]:
    found = {**HELD, "method": method, "metric": metric, "value": value, "split": split, "catalogue": 50}
    return {**found, "protocol": "p", "settings_hash": "c", "tables": TABLES, **more}


def part(method: str, dimension: str, name: str, value: float, metric: str = "NDCG@10") -> dict[str, Any]:
    held = {**HELD, "split": "test", "items": 1, "low": value / 2, "high": value * 2}
    return {**held, "method": method, "dimension": dimension, "slice": name, "metric": metric, "value": value}


@pytest.fixture
def planted(tmp_path: Path) -> Callable[..., Workspace]:
    def make(*slices: dict[str, Any]) -> Workspace:
        workspace = Workspace.open(str(tmp_path))
        rows = [row("learn", "HR@10", 0.5), row("learn", "NDCG@10", 0.2), row("newcomer", "HR@10", 0.25)]
        rows += [
            row("learn", f"{name}@{k}", k / 100) for name in ("novelty", "head", "coverage", "Gini") for k in (50, 10)
        ]
        plant(workspace, "evaluations", [*rows, row("learn", "HR@10", 0.6, split="validation")])
        if slices:
            plant(workspace, "evaluation_slices", slices)
        return workspace

    return make


def test_without_slices_hit_rates_have_wilsons_interval_and_other_metrics_none(
    planted: Callable[..., Workspace],
) -> None:
    workspace = planted()
    test, validation = metric_tables(workspace, evaluation("1"))
    assert (test.split, validation.split) == ("test", "validation")
    assert (test.users, test.catalogue, test.names) == (100, 50, ("HR@10", "NDCG@10"))
    # A method that nobody has named for people comes last, under its own name.
    assert [label for label, _ in test.lines] == ["LEARN", "newcomer"]
    (hits, ndcg), (other, none) = (cells for _, cells in test.lines)
    assert hits is not None
    assert ndcg is not None
    assert other is not None
    assert none is None
    assert (hits.low, hits.high) == wilson(0.5, 100)
    # Of lists the smallest k, of the methods that have all four.
    assert test.offered == (OfferedLine("LEARN", 10, (0.1, 0.1, 0.1, 0.1)),)
    assert validation.offered == ()
    assert (hits.best, ndcg.best, other.best) == (True, True, False)
    assert (ndcg.low, ndcg.high) == (None, None)
    assert [plot.key for plot in test.plots] == ["metric-test-ndcg-10", "metric-test-hr-10"]
    assert slice_plots(workspace, evaluation("1")) == []


def test_recall_of_one_target_each_is_no_second_column(planted: Callable[..., Workspace]) -> None:
    workspace = planted()
    rows = [row("learn", "recall@10", 0.5), row("newcomer", "recall@10", 0.25), row("learn", "recall@20", 0.7)]
    plant(workspace, "evaluations", [*rows, row("learn", "HR@20", 0.8)])
    assert set(metric_tables(workspace, evaluation("1"))[0].names) == {"HR@10", "NDCG@10", "recall@20", "HR@20"}


def test_the_first_card_compares_what_is_released_with_the_best_baseline(tmp_path: Path) -> None:
    planted = Planted(tmp_path)
    evaluated = metric_rows(planted.workspace)[0]
    again = {**asdict(evaluated), "model_id": planted.model_id, "method": "learn-vectors", "metric": "NDCG@10"}
    plant(planted.workspace, "evaluations", [{**again, "value": 0.055}])
    plant(planted.workspace, "releases", [release_row(9, "r9", "released", FIRST_DAY, model_id=planted.model_id)])
    page = " ".join(re.sub("<[^>]*>", " ", render(planted.workspace)).split())
    card = page[page.index("LEARN, released vectors: NDCG@10 on test") :]
    # Markov is the best baseline; the model with its reranker is none.
    assert card.split()[6:7] == ["0.0550"]
    assert "best baseline: item-to-item Markov, 0.0800; with the reranker, which is not released: 0.0600" in card[:250]


def test_the_whole_of_the_slices_gives_intervals_and_parts_are_plots_in_their_order(
    planted: Callable[..., Workspace],
) -> None:
    names = ("100+", "5-19", "unseen", "1-4", "20-99")
    workspace = planted(
        part("learn", "all", "all", 0.2),
        *[part("learn", "popularity", name, 0.1) for name in names],
        *[part("learn", "mass", name, 0.1) for name in ("tail", "head", "mid")],
        part("learn", "popularity", "100+", 0.9, metric="HR@10"),
        *[part("learn", "days", name, 0.1) for name in ("7-29", "365+", "under 1", "1-6")],
        part("learn", "novel", "b", 0.1),
    )
    test, _ = metric_tables(workspace, evaluation("1"))
    cell = test.lines[0][1][1]
    assert cell is not None
    assert (cell.value, cell.low, cell.high) == (0.2, 0.1, 0.4)
    plots = slice_plots(workspace, evaluation("1"))
    assert [plot.key for plot in plots] == ["slice-popularity", "slice-mass", "slice-days", "slice-novel"]
    assert [line[0] for line in plots[0].rows] == ["unseen", "1-4", "5-19", "20-99", "100+"]
    assert [line[0] for line in plots[1].rows] == ["head", "mid", "tail"]
    assert [line[0] for line in plots[2].rows] == ["under 1", "1-6", "7-29", "365+"]
    assert plots[0].rows[0] == ("unseen", "100 users, 1 item", "0.1 (0.05 to 0.2)")


def test_an_evaluation_that_was_done_already_is_shown_by_a_later_run(planted: Callable[..., Workspace]) -> None:
    workspace = planted()
    assert metric_tables(workspace, evaluation("2")) == metric_tables(workspace, evaluation("1")) != []
    # Another model, other settings, another version of a table: these are other results.
    for run in (evaluation("2", "another"), evaluation("2", settings="d"), evaluation("2", user_histories="4")):
        assert metric_tables(workspace, run) == slice_plots(workspace, run) == []


def test_wilsons_interval() -> None:
    # Agresti and Coull 1998: 0 of 10, 5 of 10.
    assert wilson(0.0, 10) == (0.0, pytest.approx(0.2775, abs=5e-5))
    assert wilson(0.5, 10) == (pytest.approx(0.2366, abs=5e-5), pytest.approx(0.7634, abs=5e-5))
    assert wilson(1.0, 10) == (pytest.approx(0.7225, abs=5e-5), pytest.approx(1.0))
    with pytest.raises(ValueError, match="0 users"):
        wilson(0.5, 0)
