"""Training by prefixes: every prefix once, from many users in a batch, in equally many steps of all processes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.data.splits.selection import shifted
from learn_spark.model.feed import prefixes as module
from learn_spark.model.feed.prefixes import Prefixes
from learn_spark.model.feed.shuffle import Rows
from learn_spark.model.feed.stream import HistoryStream

WIDTH, HISTORY = 7, 3
COLUMNS = ["item_index", "event_time", "train_end", "train_length"]
Sample = tuple[tuple[int, ...], int]


def rows_of(lengths: list[int], ends: list[int]) -> dict[str, np.ndarray]:
    """Item 10 u + t is event t of row u, from 1 on, and its time is 1000 times as large."""
    items = np.where(
        np.arange(WIDTH) < np.array(lengths, int).reshape(-1, 1),
        10 * np.arange(len(lengths)).reshape(-1, 1) + np.arange(1, WIDTH + 1),
        0,
    )
    return {
        "item_index": items.astype(np.int32),
        "event_time": 1000 * items.astype(np.int64),
        "train_end": np.array(ends, np.int32),
        "train_length": np.array(lengths, np.int32),
        "chunk": np.zeros(len(lengths), np.int32),
    }


def slowly(lengths: list[int], ends: list[int]) -> list[Sample]:
    """(the last HISTORY events of each prefix, the event after it)."""
    samples = []
    for row, (length, end) in enumerate(zip(lengths, ends, strict=True)):
        if end and end >= length:
            continue
        events = [10 * row + t for t in range(1, length + 1)]
        samples += [(tuple(events[max(0, at - HISTORY) : at]), events[at]) for at in range(1, length)]
    return samples


def samples_of(blocks: list[Rows]) -> list[Sample]:
    found = []
    for block in blocks:
        assert set(block) == set(COLUMNS)
        assert (block["event_time"] == 1000 * block["item_index"].astype(np.int64)).all()
        assert not block["train_end"].any()
        for row, length in zip(block["item_index"].tolist(), block["train_length"].tolist(), strict=True):
            assert len(row) == HISTORY + 1
            assert not any(row[length:])
            found.append((tuple(row[: length - 1]), row[length - 1]))
    return found


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, WIDTH), st.integers(0, WIDTH)), max_size=12), st.integers(1, 30))
def test_samples_are_those_of_the_slow_way_in_blocks_of_any_size(rows: list[tuple[int, int]], cells: int) -> None:
    lengths, ends = [length for length, _ in rows], [end for _, end in rows]
    table = rows_of(lengths, ends)
    prefixes = Prefixes(until="train_length", history=HISTORY)
    expected = slowly(lengths, ends)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CELLS", cells)
        blocks = list(prefixes.samples(table))
    assert samples_of(blocks) == expected
    assert int(prefixes.counts(table).sum()) == len(expected)
    # A block is as large as allowed, or the samples of one row.
    assert all(len(b["train_end"]) <= max(cells // (HISTORY + 1), WIDTH - 1) for b in blocks)


def test_a_history_of_no_event_is_refused() -> None:
    with pytest.raises(ValueError, match="history 0"):
        Prefixes(until="train_length", history=0)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Three files of rows of 0 to 7 events, in row groups of 20."""
    folder = tmp_path_factory.mktemp("prefixes")
    lengths = np.random.default_rng(3).integers(0, WIDTH + 1, 130)
    files, sizes, table = [], [50, 37, 43], rows_of(lengths.tolist(), [0] * 130)
    for number, at in enumerate(np.split(np.arange(130), np.cumsum(sizes)[:-1])):
        columns = {name: list(values[at]) if values.ndim == 2 else values[at] for name, values in table.items()}
        columns["length"] = columns["validation_length"] = table["train_length"][at]
        files.append(str(folder / f"{number}.parquet"))
        pq.write_table(pa.table(columns), files[-1], row_group_size=20)
    return Snapshot(str(folder), 0, tuple(files), tuple(sizes))


def stream(snapshot: Snapshot, **options: Any) -> HistoryStream:
    options = {"shuffle_rows": 60, "seed": 1, "bucket_batches": 3, "length_column": "train_length", **options}
    prefixes = Prefixes(until="train_length", history=HISTORY)
    return HistoryStream(snapshot, options.pop("columns", COLUMNS), until="train_length", prefixes=prefixes, **options)


def every_sample(snapshot: Snapshot) -> list[Sample]:
    lengths = np.concatenate([pq.read_table(file)["train_length"].to_numpy() for file in snapshot.files]).tolist()
    return sorted(slowly(lengths, [0] * len(lengths)))


@pytest.mark.parametrize("world", [1, 3])
def test_every_prefix_once_an_epoch_in_equally_many_even_batches(snapshot: Snapshot, world: int) -> None:
    expected = every_sample(snapshot)
    for epoch in range(3):
        found: list[Sample] = []
        for rank in range(world):
            feed = stream(snapshot, rank=rank, world=world)
            batches = list(feed.epoch(epoch, 16))
            assert len(batches) == feed.steps(16) == math.ceil(math.ceil(len(expected) / world) / 16)
            sizes = [len(batch["train_length"]) for batch in batches]
            assert max(sizes) - min(sizes) <= 1
            found += samples_of(batches)
            resumed = list(stream(snapshot, rank=rank, world=world).epoch(epoch, 16, start=5))
            assert samples_of(resumed) == samples_of(batches[5:])
        assert sorted(found) == expected


def test_processes_without_rows_have_as_many_steps(snapshot: Snapshot) -> None:
    """More processes than rows: some have no row, and their batches no sample, of the shapes of others."""
    lone = Snapshot(snapshot.path, 0, snapshot.files[:1], (50,))
    feeds = [stream(lone, rank=rank, world=120) for rank in range(120)]
    epochs = [list(feed.epoch(0, 2)) for feed in feeds]
    assert len({len(batches) for batches in epochs}) == 1
    assert sorted(sample for batches in epochs for sample in samples_of(batches)) == every_sample(lone)
    assert {batch["item_index"].shape[1] for batches in epochs for batch in batches} == {HISTORY + 1}


def test_a_batch_has_prefixes_of_many_users(snapshot: Snapshot) -> None:
    feed = stream(snapshot, shuffle_rows=1000, bucket_batches=1)
    batches = list(feed.epoch(0, 32))
    users = [len({sample[1] // 10 for sample in samples_of([batch])}) for batch in batches]
    # 32 of about 390 prefixes of 110 users, without replacement: 28 users on average; a user's prefixes together: 8.
    assert np.mean(users) > 24
    assert samples_of(batches) != samples_of(list(feed.epoch(1, 32)))


def test_events_that_choose_the_epoch_are_in_no_sample(snapshot: Snapshot) -> None:
    """Rule strict: each row's last training event is no training event."""
    needed = ["chunk", "length", "train_length", "validation_length"]
    feed = stream(
        snapshot,
        columns=list(dict.fromkeys([*COLUMNS, *needed])),
        transform=lambda rows: shifted({**rows, "length": rows["length"] + 1}, "last_event"),
        transform_columns=needed,
    )
    lengths = np.concatenate([pq.read_table(file)["train_length"].to_numpy() for file in snapshot.files]).tolist()
    found = samples_of(list(feed.epoch(0, 16)))
    shorter = [max(length - 1, 0) if length > 1 else length for length in lengths]
    assert sorted(found) == sorted(slowly(shorter, [0] * len(lengths)))


def test_a_table_without_a_sample_has_no_step(tmp_path: Path) -> None:
    table = rows_of([1, 0, 1], [0, 0, 0])
    file = str(tmp_path / "0.parquet")
    pq.write_table(pa.table({n: list(v) if v.ndim == 2 else v for n, v in table.items()}), file)
    feed = stream(Snapshot(str(tmp_path), 0, (file,), (3,)))
    assert feed.steps(16) == 0
    assert list(feed.epoch(0, 16)) == []
