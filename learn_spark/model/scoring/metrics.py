"""HR@k, recall@k, NDCG@k and MRR of each user from the ranks of their targets.

Functions take ``ranks`` [T] and ``offsets`` [B + 1]: the targets of user i have ``ranks[offsets[i] : offsets[i + 1]]``.
Without ``offsets`` every user has one target. Ranks count from 1; halves (ties) are valid. A target's gain is 1, any
other item's 0. All functions raise ValueError for no users, a user without a target, a rank below 1 or NaN, and k below
1.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def hit_rate(ranks: np.ndarray, k: int, offsets: np.ndarray | None = None) -> np.ndarray:
    """[B]: 1.0 where at least one target is among the first k, else 0.0.

    >>> hit_rate(np.array([1.0, 3.0, 12.0]), 10, np.array([0, 2, 3])).tolist()
    [1.0, 0.0]
    """
    starts, _ = _users(ranks, k, offsets)
    return np.maximum.reduceat((ranks <= k).astype(np.float64), starts)


def recall(ranks: np.ndarray, k: int, offsets: np.ndarray | None = None) -> np.ndarray:
    """[B]: the share of a user's targets that are among the first k; with one target the hit rate.

    >>> recall(np.array([1.0, 3.0, 12.0]), 2, np.array([0, 2, 3])).tolist()
    [0.5, 0.0]
    """
    starts, counts = _users(ranks, k, offsets)
    return np.add.reduceat((ranks <= k).astype(np.float64), starts) / counts


def ndcg(ranks: np.ndarray, k: int, offsets: np.ndarray | None = None) -> np.ndarray:
    """[B]: the sum of 1 / log2(1 + rank) over the targets among the first k, divided by the sum for min(k, targets)
    targets in the first places (Järvelin and Kekäläinen 2002, gains of 0 and 1).

    >>> ndcg(np.array([1.0, 3.0, 12.0]), 10, np.array([0, 2, 3])).round(4).tolist()
    [0.9197, 0.0]
    """
    starts, counts = _users(ranks, k, offsets)
    gains = np.where(ranks <= k, 1.0 / np.log2(1.0 + ranks), 0.0)
    ideal = np.cumsum(1.0 / np.log2(2.0 + np.arange(min(k, int(counts.max())))))
    values = np.add.reduceat(gains, starts) / ideal[np.minimum(k, counts) - 1]
    return np.minimum(values, 1.0)  # sums in another order may exceed 1 by a bit


def reciprocal_rank(ranks: np.ndarray, offsets: np.ndarray | None = None) -> np.ndarray:
    """[B]: 1 / rank of a user's best target, at any depth. Its mean is MRR.

    >>> reciprocal_rank(np.array([1.0, 3.0, 12.0]), np.array([0, 2, 3])).round(4).tolist()
    [1.0, 0.0833]
    """
    starts, _ = _users(ranks, 1, offsets)
    return np.maximum.reduceat(1.0 / ranks, starts)


def per_user(ranks: np.ndarray, ks: Iterable[int], offsets: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Every metric of every user [B] by name: HR@k, recall@k and NDCG@k for each k of ``ks``, and MRR."""
    metrics: dict[str, np.ndarray] = {}
    for k in ks:
        metrics[f"HR@{k}"] = hit_rate(ranks, k, offsets)
        metrics[f"recall@{k}"] = recall(ranks, k, offsets)
        metrics[f"NDCG@{k}"] = ndcg(ranks, k, offsets)
    return metrics | {"MRR": reciprocal_rank(ranks, offsets)}


def summarise(ranks: np.ndarray, ks: Iterable[int], offsets: np.ndarray | None = None) -> dict[str, float]:
    """The means over users of ``per_user``, by metric."""
    return {name: float(values.mean()) for name, values in per_user(ranks, ks, offsets).items()}


def _users(ranks: np.ndarray, k: int, offsets: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(start of each user's ranks, number of each user's targets) [B], after the checks named in the module's
    docstring.
    """
    if ranks.ndim != 1 or len(ranks) == 0:
        raise ValueError(f"metrics need ranks [T] of at least one user, got the shape {ranks.shape}")
    if k < 1:
        raise ValueError(f"k {k} must be at least 1")
    if not (ranks >= 1).all():
        raise ValueError(f"{int((~(ranks >= 1)).sum())} of {len(ranks)} ranks are below 1 or not a number")
    if offsets is None:
        return np.arange(len(ranks)), np.ones(len(ranks), dtype=np.int64)
    counts = np.diff(offsets)
    if offsets[0] != 0 or offsets[-1] != len(ranks) or (counts < 1).any():
        raise ValueError(
            f"offsets must rise from 0 to {len(ranks)}, got {offsets[0]} to {offsets[-1]} with "
            f"{int((counts < 1).sum())} of {len(counts)} users without a target"
        )
    return offsets[:-1], counts
