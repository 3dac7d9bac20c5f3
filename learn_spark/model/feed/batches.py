"""A stream of row blocks cut into batches, those of like length together if wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from learn_spark.model.feed.shuffle import Rows, row_count


def cut_batches(
    blocks: Iterable[Rows],
    *,
    batch_size: int,
    steps: int,
    start: int,
    bucket_batches: int,
    length_column: str | None,
    pool_generator: Callable[[int], np.random.Generator],
) -> Iterator[Rows]:
    """Batches ``start`` to ``steps`` - 1 of the rows in ``blocks``, which must have at least one block.

    All batches but the last have ``batch_size`` rows; the last has what is left, maybe nothing. With
    ``bucket_batches`` k > 1, k batches at a time are sorted by ``length_column``, cut, and put into the order that
    ``pool_generator(number of the pool)`` gives. The last batch stays out of that, so that every step but the last has
    full batches on all ranks, and at one step all ranks have batches of like length.

    All blocks are read, whatever ``start`` is; batches before it are not put together.
    """
    rows = _Pieces(blocks)
    for pool, first in enumerate(range(0, steps - 1, bucket_batches)):
        batches = min(bucket_batches, steps - 1 - first)
        if first + batches <= start:
            rows.skip(batches * batch_size)
            continue
        joined = rows.take(batches * batch_size)
        if batches == 1 or length_column is None:
            yield from (
                _part(joined, slice(i * batch_size, (i + 1) * batch_size)) for i in _from(start, first, batches)
            )
            continue
        by_length = np.argsort(joined[length_column], kind="stable")
        order = pool_generator(pool).permutation(batches)
        for i in _from(start, first, batches):
            at = int(order[i]) * batch_size
            yield _part(joined, by_length[at : at + batch_size])
    last = rows.rest()
    if start < steps:
        yield last


def _from(start: int, first: int, batches: int) -> range:
    return range(max(0, start - first), batches)


def _part(rows: Rows, which: slice | np.ndarray) -> Rows:
    return {name: values[which] for name, values in rows.items()}


class _Pieces:
    """Takes exact numbers of rows off a stream of blocks."""

    def __init__(self, blocks: Iterable[Rows]) -> None:
        self._blocks = iter(blocks)
        self._block: Rows = {}
        self._at = self._left = 0

    def skip(self, rows: int) -> None:
        for _ in self._slices(rows):
            pass

    def take(self, rows: int) -> Rows:
        return _joined([_part(block, which) for block, which in self._slices(rows)])

    def rest(self) -> Rows:
        parts = [_part(self._block, slice(self._at, None))] if self._block else []
        return _joined([*parts, *self._blocks])

    def _slices(self, rows: int) -> Iterator[tuple[Rows, slice]]:
        while rows:
            while not self._left:
                self._block = next(self._blocks)
                self._at, self._left = 0, row_count(self._block)
            taken = min(rows, self._left)
            yield self._block, slice(self._at, self._at + taken)
            self._at, self._left, rows = self._at + taken, self._left - taken, rows - taken


def _joined(parts: list[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
