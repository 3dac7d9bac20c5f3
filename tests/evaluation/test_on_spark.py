"""Users ranked in Spark's workers: every figure is that of the driver, to the last digit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.runs import Run
from learn_spark.data.splits.folds import fold_of
from learn_spark.evaluation import blocks, tasks
from learn_spark.evaluation.blocks import block_of
from learn_spark.evaluation.measures import Measured
from learn_spark.evaluation.workers import RankedOnSpark, RankingSpec, _by_block, rank_on_spark
from tests.report.planted import history_row, plant
from tests.shelf import RIVAL, Shelf, reading

PLUS = ("tower.kind=learn-plus", "objective.predicts=next_item", "objective.negatives=full", "training.seed=4")
NARROW = "tower.narrowing={width: 9, steps: 5}"
TOWERS = {
    "learn": (),
    "sasrec": RIVAL,
    "reranked": (*PLUS, "tower.reranker={hidden: 4, epochs: 2}", NARROW, "training.rule=refit"),
    "blended": (*PLUS, "tower.blending={co_visits: 3}", NARROW, "training.epochs=3"),
}


def written(shelf: Shelf, run: Run) -> dict[str, list[dict[str, Any]]]:
    """The rows of a run in the three tables, without its id, in one order."""
    tables = {}
    for table in ("evaluations", "evaluation_slices", "evaluation_users"):
        rows = [row for row in read_rows(shelf.workspace.table(table)) if row.pop("run_id") == run.run_id]
        tables[table] = sorted(rows, key=lambda row: [str(value) for value in row.values()])
    return tables


@pytest.mark.parametrize("protocol", ["leave_last_out", "time_split"])
def test_figures_do_not_depend_on_where_users_are_ranked(
    protocol: str, tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf(tmp_path / "shelf", reading(), protocol)
    plant(shelf.workspace, "user_histories", [history_row("u01", range(1, 9), chunk=1, width=12)])
    monkeypatch.setattr(blocks, "BLOCK_USERS", 7)
    monkeypatch.setattr(tasks, "LIST_USERS", 15)
    for name, settings in TOWERS.items():
        if protocol == "time_split" and name == "reranked":
            settings = tuple(one for one in settings if "refit" not in one)
        shelf.run("train", *settings)
        here, done = shelf.run("evaluate", *settings, "evaluation.runner=driver")
        there, done_there = shelf.run("evaluate", *settings, "evaluation.runner=spark", forced=True)
        assert done.counts == done_there.counts
        ours, theirs = written(shelf, here), written(shelf, there)
        assert len(ours["evaluation_users"]) > 100, name
        (commit,) = DeltaTable(shelf.workspace.table("evaluation_users")).history(1)
        assert commit["engineInfo"].startswith("Apache-Spark"), "the driver wrote the rows"
        for table, rows in ours.items():
            assert rows == theirs[table], (name, table)
        users = {row["users"] for row in ours["evaluations"] if row["metric"].startswith("coverage")}
        assert users == {15}, name
    # Other blocks, another number of tasks: the same figures.
    monkeypatch.setattr(blocks, "BLOCK_USERS", 1_000)
    whole, _ = shelf.run("evaluate", *settings, "evaluation.runner=driver", forced=True)
    assert written(shelf, whole) == ours
    some, _ = shelf.run("evaluate", *settings, "evaluation.runner=spark", "evaluation.users=20")
    few, _ = shelf.run("evaluate", *settings, "evaluation.runner=driver", "evaluation.users=20", forced=True)
    assert written(shelf, some) == written(shelf, few)
    assert not list((shelf.workspace.root / "cache" / "evaluation").iterdir())


def test_a_task_that_fails_leaves_no_result(
    tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf(tmp_path / "shelf", reading())
    shelf.run("train", *RIVAL)

    def without_a_file(histories: DataFrame, users: int, spec: RankingSpec) -> tuple[Measured, RankedOnSpark]:
        if spec.plan.split == "test":
            (Path(spec.files) / "pairs.npy").unlink()
        return rank_on_spark(histories, users, spec)

    monkeypatch.setattr(tasks, "rank_on_spark", without_a_file)
    with pytest.raises(LearnSparkError, match=r"a task of Spark that ranks users failed: .*pairs\.npy"):
        shelf.run("evaluate", *RIVAL, "evaluation.runner=spark")
    assert not (shelf.workspace.root / "tables" / "evaluations").exists()
    assert not (shelf.workspace.root / "tables" / "evaluation_users").exists()


def test_blocks_are_whole_and_have_both_folds() -> None:
    users = [f"user {number}" for number in range(2_000)]
    number, fold = block_of(users, 8), fold_of(users)
    assert np.bincount(number).min() > 150
    for block in range(8):
        assert 0.35 < fold[number == block].mean() < 0.65
    order = np.argsort(number, kind="stable")
    rows = pa.table({"user_id": [users[row] for row in order], "block": number[order]})
    parts = list(_by_block(rows.to_batches(max_chunksize=97)))
    assert [part["user_id"].to_pylist() for part in parts] == [
        [users[row] for row in np.flatnonzero(number == block)] for block in range(8)
    ]
