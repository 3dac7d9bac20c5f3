"""The layout of an epoch: whatever the files, ranks are disjoint, complete, balanced, and have equal steps."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from learn_spark.model.feed.order import rank_range, rank_segments, steps_per_epoch

FILE_ROWS = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any)


def covered(file_rows: list[int], rank: int, world: int, **key: int) -> list[tuple[int, int]]:
    segments = rank_segments(file_rows, rank=rank, world=world, **key)
    return [(s.file, row) for s in segments for row in range(s.start, s.stop)]


@given(FILE_ROWS, st.integers(1, 7), st.integers(0, 5), st.integers(0, 5))
def test_ranks_cover_every_row_once_in_balance(file_rows: list[int], world: int, seed: int, epoch: int) -> None:
    ranks = [covered(file_rows, rank, world, seed=seed, epoch=epoch) for rank in range(world)]
    everything = [(file, row) for file, rows in enumerate(file_rows) for row in range(rows)]
    assert sorted(pair for rank in ranks for pair in rank) == everything
    assert max(map(len, ranks)) - min(map(len, ranks)) <= 1
    assert [len(rank) for rank in ranks] == [
        high - low for low, high in (rank_range(sum(file_rows), r, world) for r in range(world))
    ]
    # However many ranks, the epoch is the same row of files, cut elsewhere.
    assert [pair for rank in ranks for pair in rank] == covered(file_rows, 0, 1, seed=seed, epoch=epoch)


@given(FILE_ROWS, st.integers(1, 7), st.integers(1, 50))
def test_steps_are_those_of_the_fullest_rank(file_rows: list[int], world: int, batch_size: int) -> None:
    rows = [high - low for low, high in (rank_range(sum(file_rows), r, world) for r in range(world))]
    steps = steps_per_epoch(sum(file_rows), world, batch_size)
    assert steps == max(math.ceil(r / batch_size) for r in rows)
    # Every rank fills all steps but the last.
    assert all(r >= (steps - 1) * batch_size for r in rows)


def test_a_rank_opens_only_the_files_of_its_range() -> None:
    file_rows = [10] * 100
    for rank in range(4):
        assert len(rank_segments(file_rows, seed=0, epoch=0, rank=rank, world=4)) == 25


def test_the_order_of_files_changes_with_seed_and_epoch() -> None:
    def files(seed: int, epoch: int) -> list[int]:
        return [s.file for s in rank_segments([1] * 50, seed=seed, epoch=epoch, rank=0, world=1)]

    orders = [tuple(files(seed, epoch)) for seed in range(3) for epoch in range(3)]
    assert len(set(orders)) == 9
    assert files(2, 1) == files(2, 1)
