"""The quality of the shuffling, and the bound on rows in memory."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.model.feed.shuffle import ShuffleBuffer, row_count
from learn_spark.model.feed.stream import HistoryStream
from tests.model.feed.files import COLUMNS, rows_of, write_files

FILES, FILE_ROWS, SHUFFLE_ROWS, BATCH = 40, 500, 4000, 50
ROWS = FILES * FILE_ROWS


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return write_files(tmp_path_factory.mktemp("shuffle"), [FILE_ROWS] * FILES, row_group=250)


def order(snapshot: Snapshot, epoch: int, shuffle_rows: int = SHUFFLE_ROWS) -> np.ndarray:
    """Row numbers in the order of an epoch."""
    return np.array(rows_of(HistoryStream(snapshot, ["row"], shuffle_rows=shuffle_rows, seed=5).epoch(epoch, BATCH)))


def through(buffer: ShuffleBuffer, sizes: list[int]) -> tuple[list[int], int]:
    """(rows 0, 1, ... as they come out, the largest size of the buffer), pushed in blocks of ``sizes``."""
    out: list[int] = []
    most = at = 0
    for size in sizes:
        for rows in buffer.push({"row": np.arange(at, at + size), "twice": 2 * np.arange(at, at + size)}):
            assert rows["twice"].tolist() == (2 * rows["row"]).tolist()
            out += rows["row"].tolist()
        at += size
        most = max(most, buffer.size)
    return out + [int(row) for rows in buffer.flush() for row in rows["row"]], most


@given(st.lists(st.integers(0, 60), min_size=1, max_size=8), st.integers(1, 70))
def test_every_row_comes_out_once_and_the_buffer_keeps_its_capacity(sizes: list[int], capacity: int) -> None:
    out, most = through(ShuffleBuffer(capacity, np.random.default_rng(0)), sizes)
    assert sorted(out) == list(range(sum(sizes)))
    assert most <= capacity


def test_a_stream_that_fits_comes_out_in_every_order_equally_often() -> None:
    seen = Counter(tuple(through(ShuffleBuffer(4, np.random.default_rng(s)), [1, 3])[0]) for s in range(4800))
    # 24 orders, 200 times each in the mean; a standard deviation is 13.8.
    assert len(seen) == 24
    assert all(abs(times - 200) < 60 for times in seen.values())


def test_rows_wait_as_long_as_the_buffer_is_large() -> None:
    out, _ = through(ShuffleBuffer(500, np.random.default_rng(0)), [100] * 200)
    place = np.empty(len(out), int)
    place[out] = np.arange(len(out))
    # A row that comes in after the start leaves after 500 others in the mean, with an exponential tail.
    waits = (place - np.arange(len(out)))[1000:15000] + 500
    assert 450 < waits.mean() < 550
    assert 350 < waits.std() < 600


def test_position_in_the_table_is_hardly_correlated_with_position_in_an_epoch(snapshot: Snapshot) -> None:
    correlations = []
    for epoch in range(6):
        place = np.empty(ROWS)
        place[order(snapshot, epoch)] = np.arange(ROWS)
        correlations.append(np.corrcoef(np.arange(ROWS), place)[0, 1])
    # Forty files in random order would give 0.16 (standard deviation); in the order of the table, 0.9 or more.
    assert np.sqrt(np.mean(np.square(correlations))) < 0.2
    # A row's place in two epochs is not the same place.
    first, second = (np.argsort(order(snapshot, epoch)) for epoch in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.35


def test_neighbours_in_a_file_are_not_neighbours_in_a_batch(snapshot: Snapshot) -> None:
    batch_of = np.empty(ROWS, int)
    batch_of[order(snapshot, 0)] = np.arange(ROWS) // BATCH
    together = (np.diff(batch_of) == 0).mean()
    # A full permutation puts two rows into one batch in 49 of 19,999 cases. In a window of ``SHUFFLE_ROWS`` rows it is
    # about BATCH / SHUFFLE_ROWS; unshuffled, 98 %.
    assert together < 1.5 * BATCH / SHUFFLE_ROWS
    # Batches are as mixed as those of a full permutation to within a third: files that a batch draws on.
    batches = (order(snapshot, 0) // FILE_ROWS).reshape(-1, BATCH)
    permuted = (np.random.default_rng(0).permutation(ROWS) // FILE_ROWS).reshape(-1, BATCH)
    files, expected = (np.mean([len(np.unique(batch)) for batch in drawn]) for drawn in (batches, permuted))
    assert files > 0.67 * expected


def test_row_groups_of_one_file_are_not_read_one_after_the_other(tmp_path: Path) -> None:
    one = write_files(tmp_path, [8000], row_group=100)
    place = np.empty(8000)
    place[order(one, 0, shuffle_rows=200)] = np.arange(8000)
    assert abs(np.corrcoef(np.arange(8000), place)[0, 1]) < 0.35


def peak_bytes(snapshot: Snapshot) -> int:
    """The most that one epoch holds in NumPy's and Arrow's memory together, its imports done."""
    feed = HistoryStream(snapshot, COLUMNS, shuffle_rows=2000, seed=0, bucket_batches=4, length_column="train_length")
    assert row_count(next(feed.epoch(0, BATCH))) == BATCH
    gc.collect()
    before = pa.total_allocated_bytes()
    seen = arrow = 0
    tracemalloc.start()
    try:
        for batch in feed.epoch(1, BATCH):
            seen += row_count(batch)
            arrow = max(arrow, pa.total_allocated_bytes() - before)
        peak = tracemalloc.get_traced_memory()[1] + arrow
    finally:
        tracemalloc.stop()
    assert seen == snapshot.rows
    return peak


def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    tables = [write_files(tmp_path / str(n), [8000] * n) for n in (2, 16)]
    # How many pieces are on their way is up to the threads, and a busy machine adds a half: the least of three epochs.
    small, large = (min(peak_bytes(table) for _ in range(3)) for table in tables)
    row = 8 + 8 * 4 + 4
    # 2,000 rows to shuffle, a row group of 1,000, four batches; Petastorm's list of row groups (1.5 kB each) grows.
    # In memory at once, the large table is more than ten times that.
    assert small < 13_000 * row
    assert large - small < 0.1 * (128_000 - 16_000) * row
    assert large < 128_000 * row / 8
