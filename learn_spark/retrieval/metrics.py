"""HR@k and NDCG@k from ranks: one relevant item a user."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def hit_rate(ranks: np.ndarray, k: int) -> np.ndarray:
    """1.0 for each user of ``ranks`` [B] whose target is among the first k, else 0.0; [B].

    Ranks count from 1; halves (ties) and inf (beyond the depth searched) are legal. ValueError for no ranks, a rank
    below 1 or NaN, and k below 1.
    """
    _check(ranks, k)
    return (ranks <= k).astype(np.float64)


def ndcg(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 / log2(1 + rank) for each user of ``ranks`` [B] whose target is among the first k, else 0.0; [B].

    With one relevant item the ideal DCG is 1. Errors as ``hit_rate``.
    """
    _check(ranks, k)
    return np.where(ranks <= k, 1.0 / np.log2(1.0 + ranks), 0.0)


def summarise(ranks: np.ndarray, ks: Iterable[int]) -> dict[str, float]:
    """The means over users, by name: ``HR@10``, ``NDCG@10`` for each k of ``ks``. Errors as ``hit_rate``."""
    found: dict[str, float] = {}
    for k in ks:
        found[f"HR@{k}"] = float(hit_rate(ranks, k).mean())
        found[f"NDCG@{k}"] = float(ndcg(ranks, k).mean())
    return found


def _check(ranks: np.ndarray, k: int) -> None:
    if ranks.ndim != 1 or len(ranks) == 0:
        raise ValueError(f"metrics need ranks [B] of at least one user, got the shape {ranks.shape}")
    if k < 1:
        raise ValueError(f"k {k} must be at least 1")
    if not (ranks >= 1).all():
        raise ValueError(f"{int((~(ranks >= 1)).sum())} of {len(ranks)} ranks are below 1 or not a number")
