"""Shuffling in bounded memory: rows wait in a buffer, and each that comes in takes the place of a random one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

Rows = Mapping[str, np.ndarray]
# Rows are moved in pieces that stay in a processor's cache.
_PIECE = 4096


def row_count(rows: Rows) -> int:
    """Number of rows, the length of any column."""
    return len(next(iter(rows.values())))


class ShuffleBuffer:
    """Holds at most ``capacity`` rows.

    The rows of a block come in by a random order of their own, and each pushes a random held row out. A row thus waits
    for about ``capacity`` others, with an exponential tail, and is copied twice, whatever the size of blocks and
    buffer. A stream no longer than ``capacity`` comes out as a full permutation.
    """

    def __init__(self, capacity: int, generator: np.random.Generator) -> None:
        if capacity < 1:
            raise ValueError(f"capacity {capacity} must be at least 1")
        self.capacity, self.held = capacity, 0
        self._generator = generator
        self._slots: dict[str, np.ndarray] = {}

    def push(self, block: Rows) -> Iterator[Rows]:
        """Take all rows of ``block``; yields as many as there was no room for."""
        if not self._slots:
            self._slots = {n: np.empty((self.capacity, *v.shape[1:]), v.dtype) for n, v in block.items()}
        incoming = self._generator.permutation(row_count(block))
        room = incoming[: self.capacity - self.held]
        for name, values in block.items():
            self._slots[name][self.held : self.held + len(room)] = values[room]
        self.held += len(room)
        piece = min(_PIECE, self.capacity)
        for at in range(len(room), len(incoming), piece):
            chosen = incoming[at : at + piece]
            slots = self._generator.choice(self.capacity, len(chosen), replace=False)
            pushed_out = {}
            for name, values in block.items():
                pushed_out[name] = self._slots[name][slots]
                self._slots[name][slots] = values[chosen]
            yield pushed_out

    def flush(self) -> Iterator[Rows]:
        """The rows still held, in random order, as one block at least (it may be empty); the buffer is empty then."""
        order = self._generator.permutation(self.held)
        self.held = 0
        slots, self._slots = self._slots, {}
        for at in range(0, max(1, len(order)), _PIECE):
            yield {name: values[order[at : at + _PIECE]] for name, values in slots.items()}
