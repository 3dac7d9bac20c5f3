"""Exact scores of a whole catalogue for one user, for explanations and examples of a few users."""

from __future__ import annotations

import numpy as np

from learn_spark.model.scoring.ranks import TIE_TOLERANCE

CHUNK_ROWS = 65_536


def scores_of(items: np.ndarray, user: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Inner products [N] float64 of items [N, D] and a user [D], -inf at the positions ``seen``.

    Equal item vectors get bit-identical scores, at any position.
    """
    wide = user.astype(np.float64)
    parts = [(items[at : at + CHUNK_ROWS] * wide).sum(axis=1) for at in range(0, len(items), CHUNK_ROWS)]
    scores = np.concatenate(parts)
    scores[seen] = -np.inf
    return scores


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k highest finite scores, highest first; equal scores in the order of position."""
    order = np.argsort(-scores, kind="stable")[:k]
    return order[np.isfinite(scores[order])]


def rank_of(scores: np.ndarray, target: int) -> float:
    """The target's rank: 1 + items with a higher score + half of the other items with an equal score.

    The same tie rule as ``model.scoring.ranks``.
    """
    above = scores - scores[target]
    same = int((np.abs(above) <= TIE_TOLERANCE).sum()) - 1
    return 1.0 + int((above > TIE_TOLERANCE).sum()) + 0.5 * same
