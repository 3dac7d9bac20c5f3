"""Selection targets under rule strict: lengths by hand; no validation or test event changes what a training reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from learn_spark.core.errors import SettingsError
from learn_spark.core.tables.log import read_rows
from learn_spark.core.times import DAY
from learn_spark.data.splits.selection import columns_of, selection_lengths, shifted_table
from learn_spark.data.splits.split import split_histories, without_test
from learn_spark.data.splits.training_view import TrainingView
from learn_spark.model.feed.stream import HistoryStream
from learn_spark.model.manifest import BEFORE_REFIT, read_manifest
from learn_spark.model.store import load_model, read_curve
from tests.shelf import RIVAL, Shelf, reading

STRICT = "training.rule=strict"
PARTS = (
    "tower.kind=learn-plus",
    "tower.reranker={hidden: 4, epochs: 2}",
    "tower.blending={co_visits: 4}",
    "tower.narrowing={width: 8, steps: 5}",
    "objective.predicts=next_item",
    "objective.negatives=full",
    "objective.learn_temperature=true",
    "training.epochs=3",
)


def rows(**columns: list[int]) -> dict[str, np.ndarray]:
    return {name: np.array(values, np.int32) for name, values in columns.items()}


def test_the_last_training_event_by_hand() -> None:
    """In turn: a usual row; one training event; no target; an older chunk; a test target alone (books_meta)."""
    read = rows(
        chunk=[0, 0, 0, 1, 0],
        length=[5, 3, 2, 4, 4],
        train_length=[3, 1, 2, 4, 3],
        validation_length=[4, 2, 2, 4, 3],
    )
    assert selection_lengths(read, "last_event").tolist() == [2, 1, 2, 4, 2]
    assert selection_lengths(read, "validation").tolist() == [3, 1, 2, 4, 3]


def test_the_last_training_day_by_hand() -> None:
    days = np.array([[1, 1, 2, 2, 5, 6], [3, 3, 3, 4, 5, 0], [1, 2, 3, 3, 4, 0]], np.int64)
    hours = np.array([0, 5, 1, 9, 2, 3], np.int64) * 3_600_000_000
    read = rows(chunk=[0, 0, 0], length=[6, 5, 5], train_length=[4, 3, 4], validation_length=[5, 4, 4])
    read["event_time"] = days * DAY + hours
    # Two events of day 2; nothing lies before day 3; two events of day 3.
    assert selection_lengths(read, "last_day").tolist() == [2, 3, 2]


def test_a_shifted_table_hides_the_validation_events() -> None:
    histories = pa.table(
        {
            "user_id": ["a", "b"],
            "chunk": pa.array([0, 0], pa.int32()),
            "item_index": pa.array([[1, 2, 3, 4, 9], [5, 6, 7, 0, 0]], pa.list_(pa.int32())),
            "event_time": pa.array([[1, 2, 3, 4, 5], [1, 2, 3, 0, 0]], pa.list_(pa.int64())),
            "length": pa.array([5, 3], pa.int32()),
            "train_end": pa.array([0, 0], pa.int32()),
            "train_length": pa.array([3, 1], pa.int32()),
            "validation_length": pa.array([4, 2], pa.int32()),
        }
    )
    read = without_test(shifted_table(histories, "last_event"))
    assert read["item_index"].to_pylist() == [[1, 2, 3, 0, 0], [5, 0, 0, 0, 0]]
    assert (read["train_length"].to_pylist(), read["validation_length"].to_pylist()) == ([2, 1], [3, 1])
    split = split_histories(read, "validation")
    assert (split.user_ids, split.targets.tolist()) == (["a"], [2])
    assert not split_histories(read, "test").user_ids
    assert shifted_table(histories, "validation").equals(histories)


@pytest.mark.parametrize("protocol", ["leave_last_out", "last_day"])
def test_another_validation_event_changes_no_bit_of_a_strict_training(tmp_path: Path, protocol: str) -> None:
    """Counts, batches, the epoch and all that is fitted; and it does change the figures of the validation split."""
    log = reading()
    moved = [
        [*events[:-2], (events[-2][0], 41 + user % 4), (events[-1][0], 45 + user % 4)]
        for user, events in enumerate(log)
    ]
    models, figures, streams = [], [], []
    for name, planted in (("here", log), ("there", moved)):
        shelf = Shelf(tmp_path / name, planted, protocol)
        view = TrainingView.open(
            shelf.workspace.table("user_histories"), 0, "last_day" if protocol == "last_day" else "last_event"
        )
        batches = view.stream(
            HistoryStream,
            ["item_index", "train_end", "validation_length"],
            until="validation_length",
            shuffle_rows=40,
            seed=1,
        )
        streams.append([batch["item_index"] for batch in batches.epoch(0, 20)])
        run, _ = shelf.run("train", *PARTS, STRICT)
        models.append(next(iter(run.outputs)))
        assert read_manifest(shelf.workspace.root / models[-1]).rule == "strict"
        shelf.run("evaluate", *PARTS, STRICT)
        rows_ = read_rows(shelf.workspace.table("evaluations"))
        figures.append({(r["method"], r["split"], r["metric"]): r["value"] for r in rows_})
    assert models[0] == models[1]
    for ours, theirs in zip(*streams, strict=True):
        assert np.array_equal(ours, theirs)
        assert ours.any()
    here, there = (figure["learn-plus", "validation", "NDCG@10"] for figure in figures)
    assert here > 0
    assert here != there
    # Baselines count what the tower learnt: nobody's training has a planted book.
    assert figures[1]["popularity", "validation", "HR@10"] == 0.0


def test_a_strict_training_chooses_by_the_last_training_event_and_learns_it(tmp_path: Path) -> None:
    """The last training events are books that nobody reads before: the choice never learnt them, the model did."""
    moved = [[*events[:-3], (events[-3][0], 43 + user % 4), *events[-2:]] for user, events in enumerate(reading())]
    shelf = Shelf(tmp_path / "here", moved)
    tower = (*RIVAL, "training.epochs=2")
    folders = []
    for settings in ((STRICT, "training.trial=true"), (STRICT,)):
        run, _ = shelf.run("train", *tower, *settings)
        folders.append(shelf.workspace.root / next(iter(run.outputs)))
    first, final = (load_model(folder).tower.state_dict()["embedding.weight"] for folder in folders)
    assert not (first[43:47] == final[43:47]).any()
    manifest = read_manifest(folders[1])
    best = max(point["validation NDCG@10"] for point in read_curve(folders[1]))
    assert manifest.validation["NDCG@10"] == best
    assert BEFORE_REFIT not in manifest.files  # the validation split is ranked by the final weights
    assert not manifest.refit


def test_strict_needs_training_events_that_are_targets(tmp_path: Path) -> None:
    assert columns_of("validation") == []
    with pytest.raises(SettingsError, match=r"training\.rule strict is for protocols"):
        Shelf(tmp_path, reading(), "time_split").settings(STRICT)
