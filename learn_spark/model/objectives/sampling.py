"""Training samples from histories: a random split in time, then the positions that take part in the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class SplitSequences:
    """Event sequences split in two at a point in time; right-padded with 0.

    ``history`` [B', H], ``history_length`` [B'], ``targets`` [B', T], ``target_length`` [B']; ``rows`` [B'] is the
    source row of each, ``splits`` [B'] the index of its first target.
    """

    history: np.ndarray
    history_length: np.ndarray
    targets: np.ndarray
    target_length: np.ndarray
    rows: np.ndarray
    splits: np.ndarray

    def align(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Another column of the same rows [B, L], such as weights, as history [B', H] and targets [B', T]."""
        start = self.splits - self.history_length
        return (
            _window(values, self.rows, start, self.history_length, self.history.shape[1]),
            _window(values, self.rows, self.splits, self.target_length, self.targets.shape[1]),
        )


@dataclass(frozen=True)
class RecencyWeights:
    """The weights of LEARN's second sampling stage: log(alpha + i * (beta - alpha) / (N - 1)), divided by the largest.

    i counts from 0 at the far end to N - 1 at the near one. A sequence of one event has the weight 1. Raises ValueError
    unless 1 < alpha < beta; otherwise weights would not be positive and increasing.
    """

    alpha: float = 10.0
    beta: float = 10_000.0

    def __post_init__(self) -> None:
        if not 1.0 < self.alpha < self.beta:
            raise ValueError(f"recency weights need 1 < alpha < beta, got alpha {self.alpha} and beta {self.beta}")

    def of(self, step: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The weight of step i in a sequence of N; ``step`` and ``lengths`` broadcast against each other."""
        rise = step * (self.beta - self.alpha) / np.maximum(lengths - 1, 1)
        largest = np.log(np.where(lengths > 1, self.beta, self.alpha))
        return np.log(self.alpha + rise) / largest


def split_sequences(
    items: np.ndarray,
    lengths: np.ndarray,
    *,
    history: int,
    targets: int,
    generator: np.random.Generator,
    min_history: int = 1,
    splits: np.ndarray | None = None,
) -> SplitSequences:
    """Split each row of ``items`` [B, L] at p, uniform in min_history .. length - 1 (LEARN section 3, twin towers).

    The history is the last ``history`` items before p, the targets are the first ``targets`` items from p on. Nothing
    at or beyond a row's length of ``lengths`` [B] is used. Rows shorter than min_history + 1 are left out. Where
    ``splits`` [B] is not 0, it is p; a row with p below min_history, or without an event from p on, is left out.

    Raises ValueError for shapes that do not fit, lengths outside 0..L and sizes below 1.
    """
    if items.ndim != 2 or lengths.shape != items.shape[:1]:
        raise ValueError(f"expected items [B, L] and lengths [B], got {items.shape} and {lengths.shape}")
    for name, size in {"history": history, "targets": targets, "min_history": min_history}.items():
        if size < 1:
            raise ValueError(f"{name} {size} must be at least 1")
    _check_lengths(lengths, items.shape[1])
    fixed_splits = np.zeros_like(lengths) if splits is None else splits
    if fixed_splits.shape != lengths.shape:
        raise ValueError(f"expected splits of the shape {lengths.shape}, got {fixed_splits.shape}")
    usable = (lengths > min_history) & (
        (fixed_splits == 0) | ((fixed_splits >= min_history) & (fixed_splits < lengths))
    )
    rows = np.flatnonzero(usable)
    ends = lengths[rows].astype(np.int64)  # [B']
    split_at = generator.integers(min_history, ends)  # [B']
    split_at = np.where(fixed_splits[rows] > 0, fixed_splits[rows], split_at)
    history_length = np.minimum(split_at, history)
    target_length = np.minimum(ends - split_at, targets)
    return SplitSequences(
        history=_window(items, rows, split_at - history_length, history_length, history),
        history_length=history_length,
        targets=_window(items, rows, split_at, target_length, targets),
        target_length=target_length,
        rows=rows,
        splits=split_at,
    )


def sample_positions(
    lengths: np.ndarray,
    n: int,
    *,
    generator: np.random.Generator,
    weights: Literal["uniform"] | RecencyWeights = "uniform",
    nearest: Literal["end", "start"] = "end",
    event_weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw min(n, length) positions of each sequence of ``lengths`` [B], without replacement.

    Returns positions [B, n] int64, ascending, and a mask [B, n] that is True where a position was drawn; the rest are
    0. ``nearest`` is the end of the sequence that weighs most under RecencyWeights: "end" for histories (the newest
    event is the last), "start" for targets (the event closest to the split is the first). ``event_weights``
    [B, >= longest], positive inside the lengths, multiply them.

    Source: LEARN section 3, N_h and N_t positions, stage 2. The paper defines i only as "position", so the direction
    for targets is the caller's choice. Raises ValueError for n below 1 and negative lengths.
    """
    if n < 1:
        raise ValueError(f"n {n} must be at least 1")
    if lengths.ndim != 1:
        raise ValueError(f"expected lengths [B], got {lengths.shape}")
    if nearest not in ("end", "start"):
        raise ValueError(f"nearest {nearest!r} must be 'end' or 'start'")
    _check_lengths(lengths, None)
    longest = max(n, int(lengths.max(initial=0)))
    ends = lengths.astype(np.int64)[:, None]  # [B, 1]
    column = np.arange(longest)  # [longest]
    inside = column < ends  # [B, longest]
    # Gumbel top-k: the n largest of log(weight) + Gumbel noise are a weighted draw of n without replacement.
    keys = generator.gumbel(size=inside.shape)
    if isinstance(weights, RecencyWeights):
        step = np.where(inside, column if nearest == "end" else ends - 1 - column, 0)
        keys += np.log(weights.of(step, ends))
    if event_weights is not None:
        width = min(longest, event_weights.shape[1])
        factors = np.where(inside[:, :width], event_weights[:, :width], 1.0)
        if (factors <= 0).any():
            raise ValueError(f"{int((factors <= 0).sum())} event weights are not above 0; weights must be positive")
        keys[:, :width] += np.log(factors)
    keys[~inside] = -np.inf
    drawn = np.argpartition(-keys, n - 1, axis=1)[:, :n]  # [B, n]
    drawn = np.sort(np.where(np.take_along_axis(inside, drawn, axis=1), drawn, longest), axis=1)
    mask = drawn < longest
    return np.where(mask, drawn, 0).astype(np.int64), mask


def _window(items: np.ndarray, rows: np.ndarray, start: np.ndarray, length: np.ndarray, width: int) -> np.ndarray:
    """items[row, start : start + length] of each row, right-padded with 0 to [B', width]."""
    column = np.arange(width)
    inside = column < length[:, None]
    at = np.where(inside, start[:, None] + column, 0)
    return np.where(inside, items[rows[:, None], at], items.dtype.type(0))


def _check_lengths(lengths: np.ndarray, longest: int | None) -> None:
    if not np.issubdtype(lengths.dtype, np.integer):
        raise ValueError(f"lengths must be integers, got {lengths.dtype}")
    if len(lengths) and lengths.min() < 0:
        raise ValueError(f"lengths must be at least 0, got {lengths.min()}")
    if longest is not None and len(lengths) and lengths.max() > longest:
        raise ValueError(f"lengths must be at most {longest}, the width of the rows, got {lengths.max()}")
