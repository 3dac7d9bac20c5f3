"""Batches from a stream of row blocks, optionally with rows of similar length together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from learn_spark.model.feed.shuffle import Rows, row_count


def form_batches(
    blocks: Iterable[Rows],
    *,
    batch_size: int,
    steps: int,
    start: int,
    bucket_batches: int,
    length_column: str | None,
    pool_generator: Callable[[int], np.random.Generator],
) -> Iterator[Rows]:
    """Batches ``start`` to ``steps`` - 1 of the rows in ``blocks``; there must be at least one block.

    All batches but the last have ``batch_size`` rows; the last has the remaining rows, possibly none. With
    ``bucket_batches`` k > 1, k batches at a time are sorted by ``length_column``, split into batches, and put into the
    order given by ``pool_generator(number of the pool)``. The last batch is not part of a pool, so that at every step
    but the last all processes have full batches, and at any step batches of similar length.

    All blocks are read whatever ``start`` is; batches before it are not assembled.
    """
    rows = _RowStream(blocks)
    for pool, first in enumerate(range(0, steps - 1, bucket_batches)):
        batches = min(bucket_batches, steps - 1 - first)
        if first + batches <= start:
            rows.skip(batches * batch_size)
            continue
        joined = rows.take(batches * batch_size)
        if batches == 1 or length_column is None:
            yield from (
                _select(joined, slice(i * batch_size, (i + 1) * batch_size)) for i in _from(start, first, batches)
            )
            continue
        by_length = np.argsort(joined[length_column], kind="stable")
        order = pool_generator(pool).permutation(batches)
        for i in _from(start, first, batches):
            at = int(order[i]) * batch_size
            yield _select(joined, by_length[at : at + batch_size])
    last = rows.rest()
    if start < steps:
        yield last


def _from(start: int, first: int, batches: int) -> range:
    return range(max(0, start - first), batches)


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
        return _concatenate([_select(block, which) for block, which in self._slices(rows)])

    def rest(self) -> Rows:
        parts = [_select(self._block, slice(self._at, None))] if self._block else []
        return _concatenate([*parts, *self._blocks])

    def _slices(self, rows: int) -> Iterator[tuple[Rows, slice]]:
        while rows:
            while not self._left:
                self._block = next(self._blocks)
                self._at, self._left = 0, row_count(self._block)
            count = min(rows, self._left)
            yield self._block, slice(self._at, self._at + count)
            self._at, self._left, rows = self._at + count, self._left - count, rows - count


def _concatenate(parts: list[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
