"""Which rows of a snapshot a rank reads in an epoch: pure functions of (seed, epoch, rank, world)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# What a generator is for. Streams of numbers for different purposes must not be the same one.
FILES, ROWS, BATCHES = 1, 2, 3


@dataclass(frozen=True)
class Segment:
    """Rows [start, stop) of one file, by its place in the snapshot's list."""

    file: int
    start: int
    stop: int


def generator_for(seed: int, epoch: int, purpose: int, *more: int) -> np.random.Generator:
    """The random numbers of one purpose in one epoch; all of ``more`` (rank, pool) tell streams apart."""
    return np.random.default_rng([seed, epoch, purpose, *more])


def rank_range(rows: int, rank: int, world: int) -> tuple[int, int]:
    """The contiguous range [start, stop) of ``rows`` positions that a rank has; ranges differ by a row at most."""
    return rows * rank // world, rows * (rank + 1) // world


def steps_per_epoch(rows: int, world: int, batch_size: int) -> int:
    """Batches of an epoch, the same for every rank: those of the rank that has most rows."""
    return math.ceil(math.ceil(rows / world) / batch_size)


def rank_segments(file_rows: Sequence[int], *, seed: int, epoch: int, rank: int, world: int) -> list[Segment]:
    """What a rank reads: files permuted by (seed, epoch), their rows laid end to end, the rank's range cut out.

    Only files that overlap the range are named. The segments of all ranks cover every row once.
    """
    start, stop = rank_range(sum(file_rows), rank, world)
    segments = []
    at = 0
    for file in generator_for(seed, epoch, FILES).permutation(len(file_rows)).tolist():
        low, high = max(start, at), min(stop, at + file_rows[file])
        if low < high:
            segments.append(Segment(file, low - at, high - at))
        at += file_rows[file]
    return segments
