"""Negatives for the sampled losses: item indices with the log-probability by which each was drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Negatives:
    """Drawn item indices ``ids`` [M] or [P, M], int64, and ``log_q`` of the same shape, float32: ln P(one draw)."""

    ids: np.ndarray
    log_q: np.ndarray


def uniform_negatives(size: int | tuple[int, int], *, n_items: int, generator: np.random.Generator) -> Negatives:
    """Items of 1..``n_items``, all equally likely, with replacement: M shared by a batch, or (P, M), M a position.

    Positives are not excluded; the losses leave out a negative that is the position's positive. Raises ValueError for
    n_items below 1.
    """
    if n_items < 1:
        raise ValueError(f"n_items {n_items} must be at least 1")
    ids = generator.integers(1, n_items + 1, size=size, dtype=np.int64)
    return Negatives(ids, np.full(ids.shape, -np.log(n_items), dtype=np.float32))


def item_log_q(counts: np.ndarray) -> np.ndarray:
    """ln(count / sum of the counts) of every item, float32 [n_items + 1], -inf for items without events.

    ``counts`` [n_items + 1] are the item's events among the training positives, by index; index 0, padding, counts
    for nothing. These are the q of in-batch negatives (Yi et al. 2019 estimate the same from a stream). Raises
    ValueError for negative counts and where nothing was counted.
    """
    if counts.ndim != 1 or len(counts) < 2:
        raise ValueError(f"expected counts [n_items + 1], got {counts.shape}")
    real = counts.astype(np.float64)
    real[0] = 0.0
    if real.min() < 0 or real.sum() <= 0:
        raise ValueError(f"counts of {len(counts) - 1} items must not be negative and not all 0")
    with np.errstate(divide="ignore"):
        return (np.log(real) - np.log(real.sum())).astype(np.float32)


def in_batch_negatives(positive_ids: np.ndarray, *, log_q: np.ndarray) -> Negatives:
    """The batch's own positives [P] as negatives of each other, with the ``log_q`` [n_items + 1] of ``item_log_q``.

    An item that is the positive of several positions is there several times, as a draw by popularity is. Raises
    ValueError for an item that was never counted: the counts are then not those of these positives.
    """
    ids = np.asarray(positive_ids, dtype=np.int64).reshape(-1)
    drawn = log_q[ids]
    if not np.isfinite(drawn).all():
        unknown = np.unique(ids[~np.isfinite(drawn)])
        raise ValueError(f"{len(unknown)} positives were counted 0 times, the first is item {unknown[0]}")
    return Negatives(ids, drawn.astype(np.float32))


def mixed_negatives(*parts: Negatives) -> Negatives:
    """Several kinds of negatives side by side, each with its own log q (Yang et al. 2020, mixed negative sampling).

    All parts are shared ([M]) or all are per position ([P, M]). Raises ValueError for parts that do not fit.
    """
    shapes = [part.ids.shape for part in parts]
    if not parts or len({shape[:-1] for shape in shapes}) != 1:
        raise ValueError(f"negatives of the shapes {shapes} cannot be put side by side")
    return Negatives(
        np.concatenate([part.ids for part in parts], axis=-1),
        np.concatenate([part.log_q for part in parts], axis=-1),
    )
