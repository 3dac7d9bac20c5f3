"""Splits: inputs, targets and masks by hand; the test event is unknown on the validation split."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from learn_spark.data.splits.split import (
    split_histories,
    trained_counts,
    training_events,
    with_validation,
    without_test,
)
from learn_spark.model.towers.content import ContentTower
from learn_spark.model.towers.hstu import HSTU
from learn_spark.model.towers.tower import Tower
from learn_spark.model.towers.vectors import item_vectors, mean_vectors, user_vectors, windows


def table(
    *rows: tuple[str, list[int], int, int, int], chunks: list[int] | None = None, splits: int | list[int] = 0
) -> pa.Table:
    width = 6
    splits = splits if isinstance(splits, list) else [splits] * len(rows)
    return pa.table(
        {
            "user_id": [r[0] for r in rows],
            "chunk": pa.array(chunks or [0] * len(rows), pa.int32()),
            "train_end": pa.array(splits, pa.int32()),
            "item_index": pa.array([r[1] + [0] * (width - len(r[1])) for r in rows], pa.list_(pa.int32())),
            "event_time": pa.array(
                [[10 * i for i in r[1]] + [0] * (width - len(r[1])) for r in rows], pa.list_(pa.int64())
            ),
            "length": pa.array([r[2] for r in rows], pa.int32()),
            "train_length": pa.array([r[3] for r in rows], pa.int32()),
            "validation_length": pa.array([r[4] for r in rows], pa.int32()),
        }
    )


HISTORIES = table(("b", [5, 6, 5, 7], 4, 2, 3), ("a", [1, 2, 3, 4, 9], 5, 3, 4), ("short", [8, 9], 2, 2, 2))


def test_by_hand() -> None:
    validation, test = split_histories(HISTORIES, "validation"), split_histories(HISTORIES, "test")
    assert validation.user_ids == test.user_ids == ["a", "b"]
    assert validation.lengths.tolist() == [3, 2]
    assert validation.targets.tolist() == [3, 4]
    assert validation.times[:, :3].tolist() == [[10, 20, 30], [50, 60, 50]]
    assert [s.tolist() for s in validation.seen] == [[0, 1, 2], [4, 5]]
    assert test.lengths.tolist() == [4, 3]
    assert test.targets.tolist() == [8, 6]
    assert [s.tolist() for s in test.seen] == [[0, 1, 2, 3], [4, 5]]
    # The third event of b is his first item again.
    assert (validation.repeats(), test.repeats()) == (1, 0)
    assert (validation.fresh.tolist(), test.fresh.tolist()) == ([0, 0], [1, 1])
    assert split_histories(with_validation(HISTORIES), "test").fresh.tolist() == [0, 0]
    values, offsets = training_events(HISTORIES)
    assert values.tolist() == [0, 1, 2, 4, 5, 7, 8]
    assert offsets.tolist() == [0, 3, 5, 7]
    # As a tower trained anew knows them: one event more of each user, and no test target.
    values, offsets = training_events(with_validation(HISTORIES))
    assert values.tolist() == [0, 1, 2, 3, 4, 5, 4, 7, 8]
    assert offsets.tolist() == [0, 4, 7, 9]


def test_older_chunks_are_masked_and_trained_on() -> None:
    histories = table(
        ("b", [5, 6, 5, 7], 4, 2, 3),
        ("b", [1, 2], 2, 2, 2),
        ("b", [3], 1, 1, 1),
        ("a", [8, 9, 1], 3, 1, 2),
        chunks=[0, 1, 2, 0],
    )
    test = split_histories(histories, "test")
    assert test.user_ids == ["a", "b"]
    assert [s.tolist() for s in test.seen] == [[7, 8], [0, 1, 2, 4, 5]]
    values, offsets = training_events(histories)
    assert values.tolist() == [7, 2, 0, 1, 4, 5]
    assert offsets.tolist() == [0, 1, 2, 4, 6]


def test_statistics_stop_at_the_time_of_the_cut() -> None:
    """Two events before T, one training target after it: popularity may not count the target."""
    values, offsets = training_events(table(("u", [5, 6, 7], 3, 3, 3), splits=2))
    assert (values.tolist(), offsets.tolist()) == ([4, 5], [0, 2])


# time_split: "a" trains on both sides of the cut; "b" has three test targets, item 7 twice; "c" a validation target.
CUT_IN_TIME = table(
    ("c", [2, 3, 8], 3, 2, 3), ("b", [1, 2, 7, 4, 7, 2], 6, 2, 2), ("a", [1, 3, 9], 3, 3, 3), splits=[3, 6, 2]
)


def test_many_targets_by_hand() -> None:
    test, validation = split_histories(CUT_IN_TIME, "test"), split_histories(CUT_IN_TIME, "validation")
    assert (test.user_ids, validation.user_ids) == (["b"], ["c"])
    every = test.every_target
    # An item counts once, where it came first; item 2 was seen before and is a target all the same.
    assert (every.positions.tolist(), every.offsets.tolist()) == ([6, 3, 1], [0, 3])
    assert (every.times.tolist(), every.times_before.tolist()) == ([70, 40, 20], [20, 70, 70])
    assert (test.targets.tolist(), [s.tolist() for s in test.seen]) == ([6], [[0, 1]])
    assert validation.every_target.positions.tolist() == [7]
    both = split_histories(HISTORIES, "test").every_target
    assert (both.positions.tolist(), both.offsets.tolist(), both.owners.tolist()) == ([8, 6], [0, 1, 2], [0, 1])
    assert (both.times.tolist(), both.times_before.tolist()) == ([90, 70], [40, 50])


def test_what_towers_were_trained_on_and_what_was_known_before_the_cut() -> None:
    """Item 9 was met as a training user's target; 7, 4 and 8 by nobody; held-out users' histories are known only."""
    assert trained_counts(CUT_IN_TIME, 9).tolist() == [1, 0, 1, 0, 0, 0, 0, 0, 1]
    assert np.bincount(training_events(CUT_IN_TIME)[0], minlength=9).tolist() == [2, 2, 2, 0, 0, 0, 0, 0, 0]
    assert trained_counts(HISTORIES, 9).tolist() == np.bincount(training_events(HISTORIES)[0], minlength=9).tolist()


@pytest.mark.parametrize("histories", [HISTORIES, CUT_IN_TIME])
def test_without_the_test_events_everything_else_is_as_it_was(histories: pa.Table) -> None:
    kept = without_test(histories)
    assert kept.schema == histories.schema
    assert not split_histories(kept, "test").user_ids
    ours, theirs = split_histories(kept, "validation"), split_histories(histories, "validation")
    assert ours.user_ids == theirs.user_ids != []
    assert ours.every_target.positions.tolist() == theirs.every_target.positions.tolist()
    assert [s.tolist() for s in ours.seen] == [s.tolist() for s in theirs.seen]
    assert all(np.array_equal(a, b) for a, b in zip(training_events(kept), training_events(histories), strict=True))
    for row, before in zip(kept.to_pylist(), histories.to_pylist(), strict=True):
        until = before["validation_length"]
        assert row["length"] == until
        for name in ("item_index", "event_time"):
            assert row[name] == before[name][:until] + [0] * (6 - until)


def towers(n_items: int, content: np.ndarray) -> list[Tower]:
    torch.manual_seed(0)
    learn = ContentTower(
        n_items=n_items, content_dim=4, width=8, layers=2, heads=2, ffn=8, output_dim=4, dropout=0.5, item_tower="a"
    )
    learn.bind(content)
    hstu = HSTU(n_items=n_items, max_length=6, width=8, layers=1, heads=2, dqk=4, dv=4, dropout=0.5)
    return [learn.eval(), hstu.eval()]


def test_the_future_reaches_neither_input_nor_mask() -> None:
    other = table(("b", [5, 6, 5, 1], 4, 2, 3), ("a", [1, 2, 3, 4, 7], 5, 3, 4), ("short", [8, 9], 2, 2, 2))
    content = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    for split in ("validation", "test"):
        ours, theirs = split_histories(HISTORIES, split), split_histories(other, split)  # type: ignore[arg-type]
        assert [s.tolist() for s in ours.seen] == [s.tolist() for s in theirs.seen]
        for tower in towers(9, content):
            one, two = (user_vectors(tower, c.items, c.lengths, 5, times=c.times) for c in (ours, theirs))
            assert np.array_equal(one, two)
        one, two = (mean_vectors(content, c.items, c.lengths, 5) for c in (ours, theirs))
        assert np.array_equal(one, two)
    assert np.array_equal(training_events(HISTORIES)[0], training_events(other)[0])


def test_windows_are_the_last_events() -> None:
    items = np.array([[1, 2, 3, 4], [5, 6, 0, 0], [7, 0, 0, 0]], dtype=np.int32)
    counts, kept, times = windows(np.array([4, 2, 1]), 3, items, items * 10)
    assert kept.tolist() == [[2, 3, 4], [5, 6, 0], [7, 0, 0]]
    assert times.tolist() == [[20, 30, 40], [50, 60, 0], [70, 0, 0]]
    assert counts.tolist() == [3, 2, 1]


def test_vectors_do_not_depend_on_the_batch_they_are_made_in() -> None:
    content = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)
    items = np.random.default_rng(2).integers(1, 20, (15, 9)).astype(np.int32)
    times = np.sort(np.random.default_rng(4).integers(0, 10**12, (15, 9)))
    lengths = np.random.default_rng(3).integers(1, 10, 15)
    for tower in towers(19, content):
        vectors = user_vectors(tower, items, lengths, 6, times=times, batch=15)
        assert np.allclose(vectors, user_vectors(tower, items, lengths, 6, times=times, batch=4), atol=1e-6)
        for row in range(15):
            window = slice(max(0, lengths[row] - 6), lengths[row])
            pair = (torch.from_numpy(x[None, row, window].astype(np.int64)) for x in (items, times))
            with torch.inference_mode():
                assert np.allclose(vectors[row], tower.user(*pair)[0, -1].numpy(), atol=1e-6)
        assert np.allclose(item_vectors(tower, batch=7), item_vectors(tower), atol=1e-6)
        assert len(item_vectors(tower)) == 19
    with pytest.raises(ValueError, match="a hstu tower needs times"):
        user_vectors(tower, items, lengths, 6)
