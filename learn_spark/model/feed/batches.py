"""Batches from a stream of row blocks, optionally with rows of similar length together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from learn_spark.model.feed.shuffle import Rows, row_count


def form_batches(
    blocks: Iterable[Rows],
    *,
    bound: Callable[[int], int],
    steps: int,
    start: int,
    bucket_batches: int,
    length_column: str | None,
    pool_generator: Callable[[int], np.random.Generator],
) -> Iterator[Rows]:
    """Batches ``start`` to ``steps`` - 1 of the rows in ``blocks``; there must be at least one block.

    Batch i ends before row ``bound(i + 1)``, the last batch with the last row; either may have no rows. With
    ``bucket_batches`` k > 1, k batches at a time are sorted by ``length_column``, split into batches, and put into the
    order given by ``pool_generator(number of the pool)``. The last batch is not part of a pool, so that at any step all
    processes have batches of similar length.

    All blocks are read whatever ``start`` is; batches before it are not assembled.
    """
    rows = _RowStream(blocks)
    for pool, first in enumerate(range(0, steps - 1, bucket_batches)):
        batches = min(bucket_batches, steps - 1 - first)
        before, after = bound(first), bound(first + batches)
        if first + batches <= start:
            rows.skip(after - before)
            continue
        joined = rows.take(after - before)
        order = np.arange(batches)
        if batches > 1 and length_column is not None:
            joined = _select(joined, np.argsort(joined[length_column], kind="stable"))
            order = pool_generator(pool).permutation(batches)
        for i in order[max(0, start - first) :].tolist():
            yield _select(joined, slice(bound(first + i) - before, bound(first + i + 1) - before))
    last = rows.rest()
    if start < steps:
        yield last


def even_bound(rows: int, steps: int, batch: int) -> int:
    """The first row of ``batch`` where ``rows`` are spread evenly over ``steps`` batches."""
    return rows * batch // steps


def _select(rows: Rows, which: slice | np.ndarray) -> Rows:
    return {name: values[which] for name, values in rows.items()}


class _RowStream:
    """Takes exact numbers of rows from a stream of blocks."""

    def __init__(self, blocks: Iterable[Rows]) -> None:
        self._blocks = iter(blocks)
        self._block: Rows = {}
        self._at = self._left = 0

    def skip(self, rows: int) -> None:
        for _ in self._slices(rows):
            pass

    def take(self, rows: int) -> Rows:
        if not rows:
            if not self._block:
                self._load()
            return _select(self._block, slice(0, 0))
        return _concatenate([_select(block, which) for block, which in self._slices(rows)])

    def rest(self) -> Rows:
        parts = [_select(self._block, slice(self._at, None))] if self._block else []
        return _concatenate([*parts, *self._blocks])

    def _load(self) -> None:
        self._block = next(self._blocks)
        self._at, self._left = 0, row_count(self._block)

    def _slices(self, rows: int) -> Iterator[tuple[Rows, slice]]:
        while rows:
            while not self._left:
                self._load()
            count = min(rows, self._left)
            yield self._block, slice(self._at, self._at + count)
            self._at, self._left, rows = self._at + count, self._left - count, rows - count


def _concatenate(parts: list[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
