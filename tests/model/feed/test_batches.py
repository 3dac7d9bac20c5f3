"""Batching and length bucketing: against a slow second implementation, and the padding that it saves."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from operator import mul
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from learn_spark.model.feed.batches import even_bound, form_batches
from learn_spark.model.feed.order import generator_for
from learn_spark.model.feed.shuffle import Rows
from learn_spark.model.feed.stream import HistoryStream
from tests.model.feed.files import COLUMNS, rows_of, write_files

POOLS = partial(generator_for, 3, 4, 3)


def blocks(lengths: list[int], sizes: list[int]) -> Iterator[Rows]:
    at = 0
    for size in [*sizes, len(lengths)]:
        chosen = np.arange(at, min(at + size, len(lengths)))
        yield {"row": chosen, "length": np.array(lengths, dtype=np.int64)[chosen]}
        at += len(chosen)


def slowly(lengths: list[int], batch_size: int, steps: int, buckets: int) -> list[list[int]]:
    """Row by row: k full batches at a time sorted by (length, place), the last batch as it comes."""
    batches: list[list[int]] = []
    full = [list(range(i * batch_size, (i + 1) * batch_size)) for i in range(steps - 1)]
    for pool, first in enumerate(range(0, steps - 1, buckets)):
        rows = sorted((row for batch in full[first : first + buckets] for row in batch), key=lambda r: (lengths[r], r))
        split = [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]
        if buckets == 1:
            split = full[first : first + 1]
        batches += [split[i] for i in POOLS(pool).permutation(len(split))]
    return [*batches, list(range((steps - 1) * batch_size, len(lengths)))]


@settings(max_examples=150)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=80),
    st.lists(st.integers(0, 30), max_size=6),
    st.integers(1, 12),
    st.integers(1, 5),
    st.booleans(),
    st.data(),
)
def test_batches_are_those_of_the_slow_way_from_any_start(
    lengths: list[int], sizes: list[int], batch_size: int, buckets: int, one_less: bool, data: st.DataObject
) -> None:
    # A rank with a row less than others has as many steps as they, maybe with nothing left for the last one.
    steps = -(-(len(lengths) + one_less) // batch_size)
    start = data.draw(st.integers(0, steps))
    batches = form_batches(
        blocks(lengths, sizes),
        bound=partial(mul, batch_size),
        steps=steps,
        start=start,
        bucket_batches=buckets,
        length_column="length" if buckets > 1 else None,
        pool_generator=POOLS,
    )
    got = [batch["row"].tolist() for batch in batches]
    expected = slowly(lengths, batch_size, steps, buckets)
    if buckets == 1:
        assert got == expected[start:]
    else:
        # A pool of one batch needs no sorting, so its rows may stand in another order.
        assert [sorted(batch) for batch in got] == [sorted(batch) for batch in expected[start:]]


@settings(max_examples=100)
@given(st.integers(0, 40), st.integers(1, 12), st.integers(1, 4), st.data())
def test_rows_are_spread_evenly_over_a_fixed_number_of_batches(
    rows: int, steps: int, buckets: int, data: st.DataObject
) -> None:
    lengths = data.draw(st.lists(st.integers(1, 5), min_size=rows, max_size=rows))
    start = data.draw(st.integers(0, steps))

    def batches(first: int) -> list[list[int]]:
        formed = form_batches(
            blocks(lengths, [7]),
            bound=partial(even_bound, rows, steps),
            steps=steps,
            start=first,
            bucket_batches=buckets,
            length_column="length",
            pool_generator=POOLS,
        )
        return [batch["row"].tolist() for batch in formed]

    whole = batches(0)
    sizes = [len(batch) for batch in whole]
    assert len(whole) == steps
    assert max(sizes) - min(sizes) <= 1
    assert sorted(row for batch in whole for row in batch) == list(range(rows))
    assert batches(start) == whole[start:]


def padding(feed: HistoryStream, batch_size: int) -> float:
    """Share of positions that are padding when a batch is as long as its longest row."""
    batches = [batch["train_length"] for batch in feed.epoch(0, batch_size)]
    positions = sum(len(lengths) * int(lengths.max()) for lengths in batches)
    return 1 - sum(int(lengths.sum()) for lengths in batches) / positions


def test_bucketing_saves_most_of_the_padding_and_loses_no_row(tmp_path: Path) -> None:
    snapshot = write_files(tmp_path, [1500] * 4)

    def feed(buckets: int) -> HistoryStream:
        return HistoryStream(
            snapshot, COLUMNS, shuffle_rows=2000, seed=0, bucket_batches=buckets, length_column="train_length"
        )

    # Lengths are geometric, of mean 2, cut off at 8: a batch of 64 nearly always has one of 6 or more.
    assert padding(feed(1), 64) > 0.65
    assert padding(feed(16), 64) < 0.2
    assert sorted(rows_of(feed(16).epoch(0, 64))) == list(range(6000))
    # Batches come in no order of length: the first of a pool is not its shortest time and again.
    means = [batch["train_length"].mean() for batch in feed(16).epoch(0, 64)][:80]
    ranks = np.argsort(np.argsort(np.reshape(means, (5, 16)), axis=1), axis=1)
    assert abs(np.corrcoef(ranks.ravel(), np.tile(np.arange(16), 5))[0, 1]) < 0.3


def test_at_any_step_all_ranks_have_batches_of_similar_length(tmp_path: Path) -> None:
    snapshot = write_files(tmp_path, [1500] * 4)
    ranks = [
        HistoryStream(
            snapshot,
            COLUMNS,
            shuffle_rows=2000,
            seed=0,
            rank=rank,
            world=2,
            bucket_batches=16,
            length_column="train_length",
        )
        for rank in range(2)
    ]
    means = np.array([[batch["train_length"].mean() for batch in feed.epoch(0, 32)] for feed in ranks])
    assert np.corrcoef(means[:, :-1])[0, 1] > 0.95
