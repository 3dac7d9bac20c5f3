"""The inputs of every ranker: rows of embedding tables, time of day and of week, rows of released vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from learn_spark.ads.inputs.vectors import MASKED
from learn_spark.core.times import DAY

WEEK = 7 * DAY
MONDAY = 4 * DAY  # after 1970-01-01, a Thursday
CYCLIC_TIME_DIMS = 4
WINDOW_ROWS = 1 << 20  # in memory at once, some 100 bytes each
BLOCK_ROWS = 1 << 12  # read at one place of a file, where a window is drawn from all of it
SCALED_BYTES = 1 << 25  # of vectors in memory at once


@dataclass(frozen=True)
class Inputs:
    """``rows`` [n, F] int32: the embedding row of each field; ``cyclic_time`` [n, 4] float32: hour and weekday, each as
    a point on a circle; ``user``, ``item`` [n]: rows of ``vectors`` [1 + R, D], MASKED for none; ``label``,
    ``weight`` [n] float32; ``counts`` [n, 6] float32: COUNTS (inputs/counts.py); ``similarities`` [n, 4] float32:
    SIMILARITIES (similarity.py), NaN where not known or not asked for.
    """

    rows: np.ndarray
    cyclic_time: np.ndarray
    user: np.ndarray
    item: np.ndarray
    vectors: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    counts: np.ndarray
    similarities: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, at: slice | np.ndarray) -> Inputs:
        """The exposures ``at`` (a slice, places, or a mask [n] bool); the vectors are shared."""
        return Inputs(
            self.rows[at],
            self.cyclic_time[at],
            self.user[at],
            self.item[at],
            self.vectors,
            self.label[at],
            self.weight[at],
            self.counts[at],
            self.similarities[at],
        )

    def read(self, start: int, stop: int) -> Inputs:
        """The exposures ``start`` to ``stop``."""
        return self.take(slice(start, stop))

    def wide(self, at: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(user vectors [b, D], item vectors [b, D], has_vector [b, 2] 1 or 0 for user and item) of rows ``at``."""
        user, item = self.user[at], self.item[at]
        has_vector = np.stack([user != MASKED, item != MASKED], axis=1).astype(np.float32)
        return self.vectors[user], self.vectors[item], has_vector


class InputSource(Protocol):
    """Exposures in the order (event_time, event_id), in memory (``Inputs``) or in a file (``InputFile``)."""

    @property
    def vectors(self) -> np.ndarray:
        """[1 + R, D] float32, of which row MASKED is zero."""
        ...

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Inputs:
        """The exposures ``start`` to ``stop``."""
        ...


def windows(source: InputSource, rows: int | None = None) -> Iterator[Inputs]:
    """All exposures in their order, at most ``rows`` (WINDOW_ROWS) at once."""
    step = rows or WINDOW_ROWS
    for start in range(0, len(source), step):
        yield source.read(start, min(start + step, len(source)))


def shuffled(source: InputSource, order: np.random.Generator) -> Iterator[Inputs]:
    """All exposures once, shuffled, at most WINDOW_ROWS at once.

    A window has blocks of consecutive exposures from random places, and its exposures are shuffled. The order depends
    on ``order`` and on the exposures' order alone, whatever files they came from. In memory are one window and 8 bytes
    a block of BLOCK_ROWS exposures.
    """
    blocks = -(-len(source) // BLOCK_ROWS)
    places = order.permutation(blocks) if len(source) > WINDOW_ROWS else np.arange(blocks)
    in_window = max(1, WINDOW_ROWS // BLOCK_ROWS)
    for first in range(0, blocks, in_window):
        chosen = places[first : first + in_window]
        if np.array_equal(chosen, np.arange(chosen[0], chosen[0] + len(chosen))):
            window = source.read(int(chosen[0]) * BLOCK_ROWS, min((int(chosen[-1]) + 1) * BLOCK_ROWS, len(source)))
        else:
            starts = [int(number) * BLOCK_ROWS for number in chosen]
            window = joined([source.read(start, min(start + BLOCK_ROWS, len(source))) for start in starts])
        yield window.take(order.permutation(len(window)))


def sampled(source: InputSource, most: int, seed: int) -> Inputs:
    """At most ``most`` exposures: all, or one of each ``most``-th part of them in their order, drawn with ``seed``."""
    if len(source) <= most:
        return joined(list(windows(source))) if len(source) else source.read(0, 0)
    edges = np.arange(most + 1, dtype=np.int64) * len(source) // most
    chosen = np.random.default_rng(seed).integers(edges[:-1], edges[1:])
    parts = []
    for start in range(0, len(source), WINDOW_ROWS):
        stop = min(start + WINDOW_ROWS, len(source))
        inside = chosen[np.searchsorted(chosen, start) : np.searchsorted(chosen, stop)]
        parts.append(source.read(start, stop).take(inside - start))
    return joined(parts)


def joined(parts: list[Inputs]) -> Inputs:
    """The exposures of ``parts``, which share their vectors, one part after another."""
    if len(parts) == 1:
        return parts[0]
    columns = ("rows", "cyclic_time", "user", "item")
    rows, cyclic, user, item = (np.concatenate([getattr(part, name) for part in parts]) for name in columns)
    names = ("label", "weight", "counts", "similarities")
    others = [np.concatenate([getattr(part, name) for part in parts]) for name in names]
    return Inputs(rows, cyclic, user, item, parts[0].vectors, *others)


def used_vectors(source: InputSource) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of the vectors the exposures read as users and as items: both [1 + R] bool, False for MASKED."""
    user, item = (np.zeros(len(source.vectors), dtype=bool) for _ in range(2))
    for window in windows(source):
        user[window.user] = True
        item[window.item] = True
    user[MASKED] = item[MASKED] = False
    return user, item


def vector_blocks(vectors: np.ndarray, used: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of ``vectors`` [R, D] that are ``used`` [R] bool, SCALED_BYTES at most at once."""
    step = max(1, SCALED_BYTES // max(1, 4 * vectors.shape[1]))
    rows = np.flatnonzero(used)
    for start in range(0, len(rows), step):
        yield vectors[rows[start : start + step]]


def cyclic_time(micros: np.ndarray) -> np.ndarray:
    """Sine and cosine of the time of day and of the time of the week (from Monday on; UTC), [n, 4] float32."""
    day = micros % DAY / DAY * 2 * np.pi
    week = (micros - MONDAY) % WEEK // DAY / 7 * 2 * np.pi
    return np.stack([np.sin(day), np.cos(day), np.sin(week), np.cos(week)], axis=1).astype(np.float32)
