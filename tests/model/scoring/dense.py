"""The rules of ranks.py over a whole matrix of scores: the slow second implementation of counted ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from learn_spark.model.scoring.ranks import TIE_TOLERANCE


def slow_rank(scores: np.ndarray, target: int, seen: Sequence[int], targets: Sequence[int] = ()) -> float:
    """The rank of ``target`` by ``scores`` [N] of one user, item by item; ``targets``: all that the user has."""
    rank = 1.0
    for item, score in enumerate(scores):
        if item == target or (item in set(seen) and item not in set(targets)):
            continue
        if abs(float(score) - float(scores[target])) <= TIE_TOLERANCE:
            rank += 0.5
        elif score > scores[target]:
            rank += 1.0
    return rank


def slow_ranks(
    scores: np.ndarray, targets: np.ndarray, seen: Sequence[np.ndarray], offsets: np.ndarray | None = None
) -> list[float]:
    """Ranks [T] of ``targets`` [T] by ``scores`` [B, N]."""
    offsets = np.arange(len(scores) + 1) if offsets is None else offsets
    ranks = []
    for row, user_scores in enumerate(scores):
        mine = targets[offsets[row] : offsets[row + 1]].tolist()
        ranks += [slow_rank(user_scores, target, seen[row].tolist(), mine) for target in mine]
    return ranks
