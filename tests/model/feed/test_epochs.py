"""Epochs of the feed: bit-identical from any resume point, complete over all processes, an error for any lost row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from learn_spark.core.errors import LearnSparkError, RowCountError
from learn_spark.core.tables.snapshot import Snapshot, SnapshotError
from learn_spark.model.feed.row_groups import _TableWorker
from learn_spark.model.feed.stream import HistoryStream
from tests.model.feed.files import COLUMNS, WIDTH, rows_of, write_files

FILE_ROWS = (40, 7, 0, 93, 25, 1, 64)
ROWS = sum(FILE_ROWS)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return write_files(tmp_path_factory.mktemp("a folder") / "t", FILE_ROWS, row_group=20)


def stream(snapshot: Snapshot, **settings: Any) -> HistoryStream:
    return HistoryStream(snapshot, COLUMNS, **{"shuffle_rows": 50, "seed": 1, **settings})


@pytest.mark.parametrize(("world", "batch_size", "buckets"), [(1, 10, 1), (3, 10, 1), (4, 19, 3), (7, 33, 2)])
def test_ranks_are_disjoint_complete_and_in_step(snapshot: Snapshot, world: int, batch_size: int, buckets: int) -> None:
    seen: list[int] = []
    for rank in range(world):
        feed = stream(
            snapshot, rank=rank, world=world, bucket_batches=buckets, length_column="train_length", shuffle_rows=16
        )
        batches = list(feed.epoch(2, batch_size))
        assert len(batches) == feed.steps(batch_size)
        assert [len(batch["row"]) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
        for batch in batches:
            assert batch["item_index"].dtype == np.int32
            assert batch["item_index"].tolist() == [list(range(row + 1, row + 1 + WIDTH)) for row in batch["row"]]
        seen += rows_of(batches)
    assert sorted(seen) == list(range(ROWS))


def test_a_rank_with_a_row_less_has_an_empty_last_batch_not_a_missing_one(snapshot: Snapshot) -> None:
    # 230 rows over 3 ranks: 76, 77, 77. With batches of 19 the first is through after four, the others need a fifth.
    last = [list(stream(snapshot, rank=rank, world=3).epoch(0, 19))[-1] for rank in range(3)]
    assert ROWS == 230
    assert [batch["item_index"].shape for batch in last] == [(0, WIDTH), (1, WIDTH), (1, WIDTH)]


def test_a_rank_without_any_row_keeps_step(tmp_path: Path) -> None:
    snapshot = write_files(tmp_path, [2])
    ranks = [list(stream(snapshot, rank=rank, world=5).epoch(0, 8)) for rank in range(5)]
    assert [len(batches) for batches in ranks] == [1] * 5
    assert sorted(len(batches[0]["row"]) for batches in ranks) == [0, 0, 0, 1, 1]
    assert {batches[0]["item_index"].shape[1] for batches in ranks} == {WIDTH}


def test_the_order_is_a_function_of_seed_epoch_rank_and_world(snapshot: Snapshot) -> None:
    def order(epoch: int = 3, **settings: Any) -> tuple[int, ...]:
        return tuple(rows_of(stream(snapshot, **settings).epoch(epoch, 10)))

    assert order() == order()
    assert len({order(), order(epoch=4), order(seed=2), order(rank=0, world=2), order(rank=1, world=2)}) == 5
    used = stream(snapshot)
    list(used.epoch(0, 10))
    assert tuple(rows_of(used.epoch(3, 10))) == order()
    # A batch is a slice of one order of rows, whatever the size of batches.
    assert tuple(rows_of(stream(snapshot).epoch(3, 64))) == order()


@pytest.mark.parametrize("buckets", [1, 4])
def test_resuming_in_mid_epoch_gives_the_remaining_batches(snapshot: Snapshot, buckets: int) -> None:
    settings: dict[str, Any] = {"bucket_batches": buckets, "length_column": "train_length", "rank": 1, "world": 2}
    unbroken = list(stream(snapshot, **settings).epoch(5, 9))
    assert len(unbroken) == 13
    for start in range(14):
        resumed = list(stream(snapshot, **settings).epoch(5, 9, start=start))
        assert len(resumed) == 13 - start
        for ours, theirs in zip(resumed, unbroken[start:], strict=True):
            for name in COLUMNS:
                np.testing.assert_array_equal(ours[name], theirs[name], strict=True)
    with pytest.raises(ValueError, match=r"start 14 must be in 0\.\.13"):
        stream(snapshot, **settings).epoch(5, 9, start=14)


def test_batches_do_not_change_when_later_ones_are_read(snapshot: Snapshot) -> None:
    kept, copies = [], []
    for batch in stream(snapshot, shuffle_rows=8).epoch(0, 10):
        kept.append(batch)
        copies.append(batch["row"].copy())
    assert [batch["row"].tolist() for batch in kept] == [copy.tolist() for copy in copies]


@pytest.mark.parametrize("change", [1, -1])
def test_a_file_that_differs_from_the_log_is_an_error_with_both_numbers(snapshot: Snapshot, change: int) -> None:
    counts = (*FILE_ROWS[:3], 93 + change, *FILE_ROWS[4:])
    with pytest.raises(
        RowCountError, match=rf"part 00003.parquet has 93 rows, but the Delta log .* records {93 + change}"
    ):
        list(stream(replace(snapshot, file_rows=counts)).epoch(0, 10))


def test_a_missing_or_truncated_file_is_an_error(tmp_path: Path) -> None:
    snapshot = write_files(tmp_path, [5, 5])
    Path(snapshot.files[1]).write_bytes(Path(snapshot.files[1]).read_bytes()[:-1])
    with pytest.raises(RowCountError, match=r"part 00001.parquet .* is not a readable Parquet file"):
        list(stream(snapshot).epoch(0, 10))
    Path(snapshot.files[1]).unlink()
    with pytest.raises(RowCountError, match=r"part 00001.parquet .* does not exist"):
        list(stream(snapshot).epoch(0, 10))


def test_a_file_that_changes_between_epochs_is_an_error(tmp_path: Path) -> None:
    snapshot = write_files(tmp_path, [5, 5])
    feed = stream(snapshot)
    list(feed.epoch(0, 10))
    write_files(tmp_path, [5, 4])
    with pytest.raises(RowCountError, match=r"part 00001.parquet has 4 rows, its footer records 5"):
        list(feed.epoch(1, 10))


def test_a_repeated_file_and_a_file_without_a_count_are_refused(snapshot: Snapshot) -> None:
    with pytest.raises(SnapshotError, match=r"part 00000.parquet more than once"):
        replace(snapshot, files=(*snapshot.files[:-1], snapshot.files[0]))
    with pytest.raises(SnapshotError, match="6 files, but 7 row counts"):
        replace(snapshot, files=snapshot.files[1:])


@pytest.mark.parametrize(
    ("file_rows", "times", "match"),
    [
        ((40, 40), 0, r"expected row group 1 of .*part 00001.parquet, Petastorm returned"),
        ((40, 40), 2, r"expected row group \d of .*Petastorm returned .*part 00001.parquet', number=1"),
        ((0, 20), 0, r"expected row group 0 of .*part 00001.parquet, Petastorm returned None"),
        ((0, 20), 2, r"more than the 1 requested row groups"),
    ],
)
def test_a_row_group_that_petastorm_drops_or_repeats_ends_the_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_rows: tuple[int, int], times: int, match: str
) -> None:
    last = file_rows[1] // 20 - 1
    process = _TableWorker.process

    def faulty(self: _TableWorker, piece_index: int, **rest: Any) -> None:
        piece = self._split_pieces[piece_index]
        for _ in range(times if "part 00001" in piece.path and piece.row_group == last else 1):
            process(self, piece_index, **rest)

    feed = stream(write_files(tmp_path, file_rows, row_group=20))
    assert len(rows_of(feed.epoch(0, 10))) == sum(file_rows)
    monkeypatch.setattr(_TableWorker, "process", faulty)
    with pytest.raises(RowCountError, match=match):
        list(feed.epoch(0, 10))


def test_nulls_ragged_lists_and_missing_columns_are_named(tmp_path: Path) -> None:
    def of(name: str, **columns: Any) -> HistoryStream:
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table(columns), path)
        return HistoryStream(Snapshot(name, 0, (str(path),), (2,)), list(columns), shuffle_rows=4, seed=0)

    with pytest.raises(LearnSparkError, match=r"column a of .*nulls.parquet, row group 0 has 1 nulls"):
        list(of("nulls", a=[1, None]).epoch(0, 2))
    with pytest.raises(LearnSparkError, match=r"column a .* has 1 nulls"):
        list(of("inner", a=[[1, None], [2, 3]]).epoch(0, 2))
    with pytest.raises(LearnSparkError, match=r"column a .* has lists of 1 to 2 values; pad them"):
        list(of("ragged", a=[[1], [2, 3]]).epoch(0, 2))
    wrong = of("missing", a=[1, 2])
    wrong.columns = ["a", "b"]
    with pytest.raises(LearnSparkError, match=r"missing.parquet .* has no column b"):
        list(wrong.epoch(0, 2))
    two = [tmp_path / "short.parquet", tmp_path / "long.parquet"]
    for path, values in zip(two, ([[1], [2]], [[1, 2], [3, 4]]), strict=True):
        pq.write_table(pa.table({"a": values}), path)
    mixed = HistoryStream(Snapshot("mixed", 0, tuple(map(str, two)), (2, 2)), ["a"], shuffle_rows=4, seed=0)
    with pytest.raises(LearnSparkError, match="must have one padded length"):
        list(mixed.epoch(0, 2))


def test_contradictory_settings_are_an_error(snapshot: Snapshot) -> None:
    for settings, match in (
        ({"shuffle_rows": 0}, "shuffle_rows 0"),
        ({"rank": 2, "world": 2}, r"rank 2 must be in 0\.\.1"),
        ({"bucket_batches": 0}, "bucket_batches 0"),
        ({"bucket_batches": 2}, "needs a length_column among"),
        ({"bucket_batches": 2, "length_column": "length"}, "needs a length_column among"),
    ):
        with pytest.raises(ValueError, match=match):
            stream(snapshot, **settings)
