"""Shuffling in bounded memory: a buffer of rows in which each incoming row replaces a random one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

Rows = Mapping[str, np.ndarray]
# Rows are copied in pieces that fit a processor's cache.
_PIECE = 4096


def row_count(rows: Rows) -> int:
    """Number of rows, the length of any column."""
    return len(next(iter(rows.values())))


class ShuffleBuffer:
    """A buffer of at most ``capacity`` rows; ``size`` is the current number. Raises ValueError for a capacity below 1.

    The rows of a block enter in random order, and each replaces a random row of the buffer. A row thus waits for about
    ``capacity`` others, with an exponential tail, and is copied twice, whatever the size of blocks and buffer. A stream
    no longer than ``capacity`` becomes a full random permutation.
    """

    def __init__(self, capacity: int, generator: np.random.Generator) -> None:
        if capacity < 1:
            raise ValueError(f"capacity {capacity} must be at least 1")
        self.capacity, self.size = capacity, 0
        self._generator = generator
        self._slots: dict[str, np.ndarray] = {}

    def push(self, block: Rows) -> Iterator[Rows]:
        """Take all rows of ``block``; yields as many rows as exceed the capacity."""
        if not self._slots:
            self._slots = {n: np.empty((self.capacity, *v.shape[1:]), v.dtype) for n, v in block.items()}
        incoming = self._generator.permutation(row_count(block))
        first_rows = incoming[: self.capacity - self.size]
        for name, values in block.items():
            self._slots[name][self.size : self.size + len(first_rows)] = values[first_rows]
        self.size += len(first_rows)
        step = min(_PIECE, self.capacity)
        for start in range(len(first_rows), len(incoming), step):
            chosen = incoming[start : start + step]
            slots = self._generator.choice(self.capacity, len(chosen), replace=False)
            evicted = {}
            for name, values in block.items():
                evicted[name] = self._slots[name][slots]
                self._slots[name][slots] = values[chosen]
            yield evicted

    def flush(self) -> Iterator[Rows]:
        """The remaining rows in random order, as at least one block (which may be empty); empties the buffer."""
        order = self._generator.permutation(self.size)
        self.size = 0
        slots, self._slots = self._slots, {}
        for start in range(0, max(1, len(order)), _PIECE):
            yield {name: values[order[start : start + _PIECE]] for name, values in slots.items()}
