"""The evaluate stage over planted tables: results agree with the ranks, are written once, and show cold items."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.quality.profile import profile
from learn_spark.core.settings.load import fingerprint
from learn_spark.core.stages.registry import find_stage
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.runs import Run
from learn_spark.core.tables.snapshot import current_version
from learn_spark.data.splits.split import split_histories, trained_counts
from learn_spark.evaluation.compare import compare
from learn_spark.evaluation.results import ResultKey, written_by
from learn_spark.features.models import usable_model
from learn_spark.model.content import bind_content
from learn_spark.model.manifest import read_manifest
from learn_spark.model.scoring.metrics import summarise
from learn_spark.model.store import load_model
from learn_spark.model.towers.vectors import item_vectors, user_vectors
from learn_spark.report.page import render
from tests.report.planted import plant
from tests.shelf import BOOKS, COLD, RIVAL, USERS, Shelf, histories, kind_of, reading

WRITTEN = ("evaluations", "evaluation_slices", "evaluation_users")
BASELINES = {"popularity", "markov", "frozen"}
N = BOOKS + COLD


class World:
    """A shelf split at a time, with a LEARN model and a SASRec model, both evaluated."""

    def __init__(self, folder: Path) -> None:
        self.shelf = Shelf(folder, reading(), "time_split")
        self.shelf.run("train", "training.epochs=12", "training.seed=4")
        self.learn, self.learn_result = self.shelf.run("evaluate")
        self.shelf.run("train", "training.epochs=8", *RIVAL)
        self.sasrec, _ = self.shelf.run("evaluate", *RIVAL)

    def rows(self, table: str, run: Run, **values: str) -> list[dict[str, Any]]:
        """Rows of a run that have the ``values``."""
        rows = [row for row in read_rows(self.shelf.workspace.table(table)) if row["run_id"] == run.run_id]
        return [row for row in rows if all(row[name] == value for name, value in values.items())]

    def versions(self) -> dict[str, int | None]:
        """Of the three tables."""
        return {table: current_version(self.shelf.workspace.table(table)) for table in WRITTEN}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("evaluate") / "shelf")


def test_figures_are_means_of_the_stored_ranks(world: World) -> None:
    for run, tower in ((world.learn, "learn"), (world.sasrec, "sasrec")):
        for split in ("validation", "test"):
            for method in (*BASELINES, tower):
                kept = world.rows("evaluation_users", run, split=split, method=method)
                # 24 held-out users of each split, with two books that others read too and a new one.
                assert len({row["user_id"] for row in kept}) == 24
                kept.sort(key=lambda row: row["user_id"])
                users = [row["user_id"] for row in kept]
                offsets = [*(n for n, user in enumerate(users) if n == 0 or users[n - 1] != user), len(users)]
                expected = summarise(np.array([row["rank"] for row in kept]), [5, 10], np.array(offsets))
                metrics = {r["metric"]: r["value"] for r in world.rows("evaluations", run, split=split, method=method)}
                for metric, value in expected.items():
                    assert metrics[metric] == pytest.approx(value, abs=1e-12), (method, metric)


def test_lists_are_those_of_a_full_sort(world: World) -> None:
    context = world.shelf.context("evaluate")
    model = load_model(world.shelf.workspace.root / "models" / world.learn.inputs["model"])
    bind_content(context, model)
    histories = context.snapshot("user_histories").to_arrow()
    split, counts = split_histories(histories, "test"), trained_counts(histories, N)
    users = user_vectors(model.tower, split.items, split.lengths, model.window)
    scores = users.astype(np.float64) @ item_vectors(model.tower).T
    for row, seen in enumerate(split.seen):
        scores[row, seen] = -np.inf
    offers = np.argsort(-scores, axis=1)[:, :10]
    metrics = {r["metric"]: r["value"] for r in world.rows("evaluations", world.learn, split="test", method="learn")}
    assert metrics["coverage@10"] == pytest.approx(len(np.unique(offers)) / N)
    assert metrics["coverage@5"] == pytest.approx(len(np.unique(offers[:, :5])) / N)
    bits = -np.log2((counts[offers] + 1) / (counts.sum() + N))
    assert metrics["novelty@10"] == pytest.approx(bits.mean())
    named = {f"{name}@{k}" for name in ("coverage", "Gini", "head", "novelty") for k in (5, 10)}
    for method in (*BASELINES, "learn"):
        assert named <= {r["metric"] for r in world.rows("evaluations", world.learn, split="test", method=method)}


def test_a_row_records_model_tables_protocol_and_settings(world: World) -> None:
    for run, tower in ((world.learn, "learn"), (world.sasrec, "sasrec")):
        rows = world.rows("evaluations", run)
        assert {(row["method"], row["model_id"]) for row in rows} == {
            *((baseline, baseline) for baseline in BASELINES),
            (tower, run.inputs["model"]),
        }
        (protocol,) = {row["protocol"] for row in rows}
        assert protocol == "time_split at 2024-06-01; whole catalogue, history masked, ties by half"
        assert {row["settings_hash"] for row in rows} == {run.config_hash}
        assert all(row["tables"] == {k: v for k, v in run.inputs.items() if k != "model"} for row in rows)
        assert {row["catalogue"] for row in rows} == {N}


def test_a_split_without_targets_is_left_out_and_the_model_can_be_released(tmp_path: Path) -> None:
    # Users 0, 4, 8, ..., who are those of the test split, have no event after the cut.
    log = [[one for one in events if one[0] < 0] if user % 4 == 0 else events for user, events in enumerate(reading())]
    shelf = Shelf(tmp_path / "shelf", log, "time_split")
    model, _ = shelf.run("train")
    run, result = shelf.run("evaluate")
    assert {row["split"] for row in read_rows(shelf.workspace.table("evaluations"))} == {"validation"}
    assert result.counts["unmeasured_splits"] == 1
    (warning,) = [note for note in result.notes if note.startswith("warning: nothing is measured on the test split")]
    assert "time_split" in warning
    assert usable_model(shelf.settings(), shelf.workspace, first=None) == model.model_id
    page = render(shelf.workspace)
    assert "no user has a target on the test split" in page
    with pytest.raises(LearnSparkError, match="no user had a target on the test split"):
        compare(shelf.workspace, [run.run_id])
    assert compare(shelf.workspace, [run.run_id], split="validation", samples=100).users == 24
    # With no target at all nothing is written, and nothing fails.
    early = [[one for one in events if one[0] < 0] for events in log]
    plant(shelf.workspace, "user_histories", histories(early, "time_split").to_pylist(), mode="overwrite")
    before = current_version(shelf.workspace.table("evaluations"))
    _, nothing = shelf.run("evaluate")
    assert (nothing.rows_out, nothing.counts["unmeasured_splits"]) == (0, 2)
    assert current_version(shelf.workspace.table("evaluations")) == before
    assert "no user has a target on the test split" in render(shelf.workspace)


def test_a_result_is_written_once(world: World) -> None:
    before = world.versions()
    again: StageResult
    for overrides in (RIVAL, (), ("training.patience=1", "tower.width=8")):
        # Settings of training do not change the result of an existing model.
        _, again = world.shelf.run("evaluate", *overrides)
        assert again.rows_out == 0
        assert world.sasrec.run_id in again.notes[0]
    assert world.versions() == before
    # A forced run evaluates again, and the newer result is valid.
    forced, result = world.shelf.run("evaluate", *RIVAL, forced=True)
    assert result.rows_out == 48
    assert written_by(world.shelf.workspace, ResultKey.of_run(world.sasrec)) == forced.run_id
    metrics = [
        {(r["method"], r["split"], r["metric"]): r["value"] for r in world.rows("evaluations", run)}
        for run in (world.sasrec, forced)
    ]
    assert metrics[0] == metrics[1]
    # Other settings of the evaluation are another result.
    run, result = world.shelf.run("evaluate", "evaluation.mask_history=false")
    assert result.rows_out == 48
    masked, unmasked = (
        {(r["user_id"], r["item_id"]): r["rank"] for r in world.rows("evaluation_users", one, split="test", method=m)}
        for one, m in ((world.sasrec, "sasrec"), (run, "sasrec"))
    )
    assert masked.keys() == unmasked.keys()
    assert all(unmasked[key] >= rank for key, rank in masked.items())
    assert sum(unmasked.values()) > sum(masked.values())
    assert {row["protocol"] for row in world.rows("evaluations", run)} == {
        "time_split at 2024-06-01; whole catalogue, history not masked, ties by half"
    }


def test_a_sample_has_the_same_users_in_every_run_and_is_not_compared_with_all(world: World) -> None:
    whole, _ = world.shelf.run("evaluate", *RIVAL, forced=True)
    with pytest.MonkeyPatch.context() as patch:
        # Parts of other sizes, which no figure depends on.
        patch.setattr("learn_spark.data.splits.training_view.PART_ROWS", 7)
        patch.setattr("learn_spark.data.splits.ranked.PART_ROWS", 5)
        run, result = world.shelf.run("evaluate", *RIVAL, "evaluation.users=10")
    again, _ = world.shelf.run("evaluate", *RIVAL, "evaluation.users=10", forced=True)
    larger, _ = world.shelf.run("evaluate", *RIVAL, "evaluation.users=17")
    assert result.rows_out == 20
    for split in ("validation", "test"):
        users = [{row["user_id"] for row in world.rows("evaluation_users", one, split=split)} for one in (run, again)]
        assert users[0] == users[1]
        assert len(users[0]) == 10
        more = {row["user_id"] for row in world.rows("evaluation_users", larger, split=split)}
        assert (len(more), users[0] < more) == (17, True)
        all_ranks, ranks = (
            {
                (row["method"], row["user_id"], row["item_id"]): (row["rank"], row["popularity"], row["mass"])
                for row in world.rows("evaluation_users", one, split=split)
                if row["user_id"] in users[0]
            }
            for one in (whole, run)
        )
        # Statistics are of all users, so that a user's ranks do not depend on the sample.
        assert ranks == all_ranks
    assert {row["users"] for row in world.rows("evaluations", run)} == {10}
    (protocol,) = {row["protocol"] for row in world.rows("evaluations", run)}
    assert protocol.endswith("ties by half; at most 10 users by hash")
    with pytest.raises(LearnSparkError, match="protocol differs"):
        compare(world.shelf.workspace, [run.run_id, whole.run_id])
    train = find_stage("train")
    every, ten = (world.shelf.settings(*RIVAL, *more) for more in ((), ("evaluation.users=10",)))
    assert fingerprint(every, train.sections) == fingerprint(ten, train.sections)


def test_items_after_the_split_are_scored_by_content_and_by_ids_no_better_than_by_chance(world: World) -> None:
    """Books 47 and 48, which only test users read: LEARN puts them before most others, SASRec anywhere."""

    def mean_rank(run: Run, method: str) -> float:
        rows = world.rows("evaluation_users", run, split="test", method=method, popularity="unseen")
        assert {(r["item_id"], r["cold"]) for r in rows} == {
            (f"b{book}", "no event before the split") for book in (BOOKS + COLD - 1, BOOKS + COLD)
        }
        assert len(rows) == 24
        assert all(kind_of(int(r["item_id"][1:])) == int(r["user_id"][1:]) // 4 % 2 for r in rows)
        return float(np.mean([r["rank"] for r in rows]))

    unmasked = N - 5.5  # users had 4 to 7 books
    assert mean_rank(world.learn, "learn") < 0.3 * unmasked
    assert mean_rank(world.sasrec, "sasrec") > 0.35 * unmasked
    assert mean_rank(world.learn, "popularity") > 0.9 * unmasked
    for run, tower in ((world.learn, "learn"), (world.sasrec, "sasrec")):
        for dimension, name in (("popularity", "unseen"), ("cold", "no event before the split")):
            parts = world.rows("evaluation_slices", run, split="test", dimension=dimension, slice=name, method=tower)
            assert {part["metric"] for part in parts} == {"HR@5", "NDCG@5"}
            assert all((part["users"], part["items"]) == (24, 2) for part in parts)
    unseen = {"split": "test", "dimension": "popularity", "slice": "unseen", "method": "learn", "metric": "HR@5"}
    (metric,) = world.rows("evaluation_slices", world.learn, **unseen)
    assert metric["low"] <= metric["value"] <= metric["high"]
    assert metric["value"] > 0.25
    assert metric["high"] > metric["low"]


@pytest.mark.parametrize("masked", ["true", "false"])
def test_training_and_evaluation_have_the_same_validation_figures(tmp_path: Path, masked: str) -> None:
    shelf, setting = Shelf(tmp_path / "shelf", reading()), f"evaluation.mask_history={masked}"
    trained, _ = shelf.run("train", "training.epochs=1", setting)
    run, _ = shelf.run("evaluate", setting)
    chosen = json.loads((shelf.workspace.root / next(iter(trained.outputs)) / "manifest.json").read_text())[
        "validation"
    ]
    manifest = read_manifest(shelf.workspace.place / next(iter(trained.outputs)))
    assert manifest.validation_users == USERS
    users = read_rows(shelf.workspace.table("evaluation_users"))
    ranks = np.array([r["rank"] for r in users if (r["method"], r["split"]) == ("learn", "validation")])
    values = np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0.0)
    assert manifest.validation_margin == pytest.approx(1.96 * np.std(values) / np.sqrt(USERS), abs=1e-9)
    rows = read_rows(shelf.workspace.table("evaluations"))
    metrics = {r["metric"]: r["value"] for r in rows if (r["method"], r["split"]) == ("learn", "validation")}
    assert {f"{name}@{k}" for name in ("HR", "recall", "NDCG") for k in (5, 10)} | {"MRR"} == set(chosen)
    assert chosen == pytest.approx({metric: metrics[metric] for metric in chosen}, abs=1e-12)
    assert {row["run_id"] for row in rows} == {run.run_id}


def test_frozen_embeddings_are_read_in_the_models_space(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf", reading(), "time_split")
    trained, _ = shelf.run("train", "training.epochs=1")
    space = shelf.workspace.table("embedding_spaces")
    (registered,) = read_rows(space)
    folder = shelf.workspace.root / next(iter(trained.outputs))
    assert json.loads((folder / "manifest.json").read_text())["space_key"] == registered["space_key"]
    ranks = []
    for kind in ("centred", "raw"):
        run, _ = shelf.run("evaluate", f"embedding_space.kind={kind}")
        rows = read_rows(shelf.workspace.table("evaluation_users"))
        ranks.append([r["rank"] for r in rows if (r["run_id"], r["method"]) == (run.run_id, "frozen")])
    assert ranks[0] == ranks[1] != []
    assert [row["space_key"] for row in read_rows(space)] == [registered["space_key"]]


def test_a_model_of_ids_without_all_items_is_an_error(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf", reading())
    shelf.run("train", "training.epochs=1", *RIVAL)
    plant(shelf.workspace, "item_index", [{"item_id": "new", "item_index": N + 1}])
    template = read_rows(shelf.workspace.table("item_text"))[0]
    plant(shelf.workspace, "item_text", [{**template, "item_id": "new"}])
    with pytest.raises(LearnSparkError, match=rf"the IDs of {N} items, but item_index has {N + 1}"):
        shelf.run("evaluate", *RIVAL)


def test_the_gate_of_the_ranks_detects_a_duplicate_target(world: World, spark: SparkSession) -> None:
    rules, path = contract("evaluation_users").rules, world.shelf.workspace.table("evaluation_users")

    def broken() -> set[str]:
        measured = profile(delta.read(spark, path), rules, lambda name: delta.read(spark, name))
        values = {rule.name: (measured[rule.name], rule) for rule in rules}
        return {
            name
            for name, (value, rule) in values.items()
            if value is None
            or not (-np.inf if rule.least is None else rule.least)
            <= value
            <= (np.inf if rule.most is None else rule.most)
        }

    assert broken() == set()
    plant(world.shelf.workspace, "evaluation_users", world.rows("evaluation_users", world.learn, method="learn")[:1])
    assert broken() == {"repeated_keys", "uneven"}


def test_users_who_had_every_item_have_figures_and_a_note_names_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three users read all of 8 books and then the first one again: no book is left to list for them."""
    monkeypatch.setattr("tests.shelf.BOOKS", 8)
    monkeypatch.setattr("tests.shelf.COLD", 0)
    log = [[(number - 60, 1 + number % 8) for number in range(9)] for _ in range(3)]
    shelf = Shelf(tmp_path / "shelf", log)
    trained, _ = shelf.run("train", "training.epochs=1")
    run, result = shelf.run("evaluate", "evaluation.mask_history=true")
    assert any("evaluation.mask_history: false" in note and "not measured on test" in note for note in result.notes)
    metrics = {
        (row["split"], row["metric"]): row["value"]
        for row in read_rows(shelf.workspace.table("evaluations"))
        if row["run_id"] == run.run_id and row["method"] == "learn"
    }
    # The target is the only book that is ranked.
    assert metrics["test", "HR@5"] == 1.0
    assert ("test", "coverage@5") not in metrics
    assert metrics["validation", "coverage@5"] > 0
    assert run.inputs["model"] == trained.model_id


def test_one_item_with_a_training_event_is_too_few_for_whitening(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf", [[(-3, 1), (-2, 2), (-1, 3)]])
    with pytest.raises(LearnSparkError, match=r"fitted on the 1 items .*embedding_space\.kind is whitened"):
        shelf.run("train", "embedding_space={kind: whitened}")
