"""The rows of a snapshot that a process reads in an epoch: pure functions of (seed, epoch, rank, world)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Purposes of random numbers; each purpose has a stream of its own.
FILES, ROWS, BATCHES = 1, 2, 3


@dataclass(frozen=True)
class Segment:
    """Rows [start, stop) of one file, given by its index in the snapshot's list."""

    file: int
    start: int
    stop: int


def generator_for(seed: int, epoch: int, purpose: int, *streams: int) -> np.random.Generator:
    """A generator for one purpose in one epoch; ``streams`` (rank, pool) select independent streams."""
    return np.random.default_rng([seed, epoch, purpose, *streams])


def rank_range(rows: int, rank: int, world: int) -> tuple[int, int]:
    """The contiguous range [start, stop) of ``rows`` positions of one process; ranges differ by at most one row."""
    return rows * rank // world, rows * (rank + 1) // world


def steps_per_epoch(rows: int, world: int, batch_size: int) -> int:
    """Batches of an epoch, the same for every process: those of the process with the most rows."""
    return math.ceil(math.ceil(rows / world) / batch_size)


def rank_segments(file_rows: Sequence[int], *, seed: int, epoch: int, rank: int, world: int) -> list[Segment]:
    """The segments that a process reads: files permuted by (seed, epoch), laid end to end, and its range taken out.

    Only files that overlap the range appear. The segments of all processes cover every row once.
    """
    start, stop = rank_range(sum(file_rows), rank, world)
    segments = []
    first_row = 0
    for file in generator_for(seed, epoch, FILES).permutation(len(file_rows)).tolist():
        low, high = max(start, first_row), min(stop, first_row + file_rows[file])
        if low < high:
            segments.append(Segment(file, low - first_row, high - first_row))
        first_row += file_rows[file]
    return segments
