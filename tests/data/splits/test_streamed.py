"""What training learns of histories part by part is what the whole table says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from learn_spark.core.ragged import fixed_lists
from learn_spark.data.splits import training_view
from learn_spark.data.splits.counts import HistoryCounts
from learn_spark.data.splits.sample import UserSample, user_hashes
from learn_spark.data.splits.split import (
    event_counts,
    split_histories,
    trained_counts,
    training_events,
    with_validation,
    without_test,
)
from learn_spark.data.splits.training_view import TrainingView
from learn_spark.model.reranking.co_visitation import Transitions

USERS, WIDTH, ITEMS = 300, 9, 40


def histories() -> pa.Table:
    """Users of 2 to 9 events; every fifth has older chunks, every seventh is held out of training samples."""
    chance = np.random.default_rng(5)
    rows = []
    for user in range(USERS):
        for chunk in range(1 + (user % 5 == 0) * 2):
            length = WIDTH if chunk else int(chance.integers(2, WIDTH + 1))
            events = chance.integers(1, ITEMS + 1, length)
            ends = (length, length) if chunk else (max(0, length - 2), length - 1)
            rows.append(
                {
                    "user_id": f"user {user:03}",
                    "chunk": chunk,
                    "item_index": [*events.tolist(), *[0] * (WIDTH - length)],
                    "event_time": [*range(1, length + 1), *[0] * (WIDTH - length)],
                    "length": length,
                    "train_end": ends[0] if user % 7 == 0 else 0,
                    "train_length": ends[0],
                    "validation_length": ends[1],
                }
            )
    numbers = {name: pa.int32() for name in ("chunk", "length", "train_end", "train_length", "validation_length")}
    kinds = {"user_id": pa.string(), "item_index": pa.list_(pa.int32()), "event_time": pa.list_(pa.int64()), **numbers}
    order = chance.permutation(len(rows))
    return pa.Table.from_pylist([rows[row] for row in order], pa.schema(list(kinds.items())))


@pytest.fixture
def view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingView:
    """The table in three files, read 17 rows at a time."""
    table, path = histories(), str(tmp_path / "histories")
    for start in range(0, len(table), 150):
        write_deltalake(path, table.slice(start, 150), mode="append")
    monkeypatch.setattr(training_view, "PART_ROWS", 17)
    return TrainingView.open(path, 2)


def test_parts_are_the_table_without_its_test_events(view: TrainingView) -> None:
    parts = list(view.parts())
    assert max(len(part) for part in parts) == 17
    keys = [("user_id", "ascending"), ("chunk", "ascending")]
    whole = without_test(histories()).select(training_view.COLUMNS)
    assert pa.concat_tables(parts).sort_by(keys).equals(whole.sort_by(keys))


def test_counts_of_parts_are_those_of_the_table(view: TrainingView) -> None:
    whole = without_test(histories())
    for until, table in (("train_length", whole), ("validation_length", with_validation(whole))):
        counts = view.counts(ITEMS, until=until)
        assert counts.events.tolist() == event_counts(table, ITEMS).tolist()
        assert counts.trained.tolist() == trained_counts(table, ITEMS).tolist()
    assert counts.events.sum() > counts.trained.sum()
    assert view.counts(ITEMS).users == len(split_histories(whole, "validation").targets)
    assert HistoryCounts.of([], 3).events.tolist() == [0, 0, 0]


def test_a_validation_sample_is_some_of_the_users_whole(view: TrainingView) -> None:
    every = split_histories(without_test(histories()), "validation")
    all_users = split_histories(view.validation_sample(USERS * 3), "validation")
    assert all_users.user_ids == every.user_ids
    assert all(np.array_equal(*pair) for pair in zip(all_users.seen, every.seen, strict=True))
    sampled = split_histories(view.validation_sample(40), "validation")
    lowest = np.argsort(user_hashes(pa.chunked_array([every.user_ids])))[:40]
    assert sampled.user_ids == [every.user_ids[row] for row in sorted(lowest)]
    for user, seen, target in zip(sampled.user_ids, sampled.seen, sampled.targets, strict=True):
        row = every.user_ids.index(user)
        assert np.array_equal(seen, every.seen[row])  # those of older chunks too
        assert target == every.targets[row]


def test_a_sample_does_not_depend_on_the_order_of_rows() -> None:
    table = histories()
    backwards = table.take(pa.array(np.arange(len(table))[::-1]))
    first = UserSample.of([table.slice(0, 100), table.slice(100)], 25)
    second = UserSample.of([backwards.slice(0, 7), backwards.slice(7)], 25)
    assert first == second
    assert len(set(first.rows(table)["user_id"].to_pylist())) == 25
    assert UserSample.of([table], USERS) == UserSample()
    # About half of all users: a hash that prefers some ids would show.
    half = UserSample(2**63).rows(table.filter(pa.array(table["chunk"].to_numpy() == 0)))
    assert abs(len(half) - USERS / 2) < 4 * np.sqrt(USERS / 4)
    with pytest.raises(ValueError, match="at least 1"):
        UserSample.of([table], 0)


def test_co_visits_of_parts_are_those_of_the_table(view: TrainingView, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learn_spark.model.reranking.co_visitation.PART_EVENTS", 64)
    whole = Transitions.of(*training_events(without_test(histories())), ITEMS, reach=3, decay=0.5)
    parts = Transitions.of_parts(map(training_events, view.user_parts(USERS * 3)), ITEMS, reach=3, decay=0.5)
    assert parts.counts.tolist() == whole.counts.tolist()
    for ours, theirs in zip(parts.channels, whole.channels, strict=True):
        assert (ours != theirs).nnz == 0  # halves and quarters add up exactly
    few = list(view.user_parts(30))
    assert len({user for part in few for user in part["user_id"].to_pylist()}) == 30


def test_lists_of_several_chunks_are_joined_without_one_offset() -> None:
    """A column whose values exceed 2^31 cannot be one Arrow list, but it can be an array of rows."""
    chunk = pa.array([[1, 2], [3, 4]], pa.list_(pa.int32()))
    assert fixed_lists(pa.chunked_array([chunk, chunk[:0], chunk[1:]])).tolist() == [[1, 2], [3, 4], [3, 4]]
