"""User and item vectors as float32, and exact scores of chosen pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pandas.util import hash_array

from learn_spark.core.ragged import concatenate_rows

EXACT_VALUES = 1 << 22  # products in memory at once when scores are computed in float64


def sampled_positions(n_items: int, most: int, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(increasing positions [S], how many items each stands for [S]) of all ``targets`` and a sample of other items.

    All of 0..n_items-1 where there are at most ``most``; else ``most`` of the others, those with the lowest hashes. A
    target stands for itself. A softmax whose terms are multiplied by these numbers estimates that over the catalogue
    (McFadden 1978, sampling of alternatives).
    """
    certain = np.unique(targets)
    others = np.setdiff1d(np.arange(n_items), certain, assume_unique=True)
    if n_items <= most or len(others) <= most:
        return np.arange(n_items), np.ones(n_items)
    sampled = others[np.argpartition(hash_array(others.astype(np.uint64)), most)[:most]]
    positions = np.concatenate([certain, sampled])
    stands_for = np.concatenate([np.ones(len(certain)), np.full(most, len(others) / most)])
    order = np.argsort(positions)
    return positions[order], stands_for[order]


class Catalogue:
    """``users`` [B, D] and ``items`` [N, D] as float32.

    Raises ValueError for shapes that do not fit and vectors that are not finite.
    """

    def __init__(self, users: np.ndarray, items: np.ndarray) -> None:
        if users.ndim != 2 or items.ndim != 2 or users.shape[1] != items.shape[1] or not len(items):
            raise ValueError(f"expected users [B, D] and items [N >= 1, D], got {users.shape} and {items.shape}")
        for name, vectors in {"users": users, "items": items}.items():
            if unusable := _not_finite(vectors):
                raise ValueError(f"{unusable} of {vectors.size} values of {name} are not finite")
        self.users = np.ascontiguousarray(users, dtype=np.float32)
        self.items = np.ascontiguousarray(items, dtype=np.float32)
        self.longest_item = float(np.sqrt(np.einsum("nd,nd->n", self.items, self.items, dtype=np.float64).max()))

    def slack(self, rows: np.ndarray) -> np.ndarray:
        """Bounds [R] on the error of a float32 score of each row: D * 2u * |user| * |item|, twice the theoretical
        bound.
        """
        unit = float(np.finfo(np.float32).eps)  # 2u
        norms = np.linalg.norm(self.users[rows].astype(np.float64), axis=1)
        return (self.users.shape[1] + 1) * unit * norms * self.longest_item

    def exact(self, rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Float64 scores [P] of user rows [P] and item positions [P]; equal vectors have bit-identical scores."""
        scores = np.empty(len(rows))
        step = max(1, EXACT_VALUES // self.users.shape[1])
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            products = self.users[rows[part]].astype(np.float64) * self.items[positions[part]]
            scores[part] = products.sum(axis=1)
        return scores


def _not_finite(vectors: np.ndarray) -> int:
    """How many values of ``vectors`` [n, D] are not finite, checked block by block."""
    step = max(1, EXACT_VALUES // max(1, vectors.shape[1]))
    blocks = (vectors[start : start + step] for start in range(0, len(vectors), step))
    return sum(block.size - int(np.isfinite(block).sum()) for block in blocks)


def check_positions(users: int, items: int, targets: np.ndarray | None, seen: Sequence[np.ndarray]) -> None:
    """Raise ValueError unless ``seen`` has an entry per user and all positions lie in 0..items-1."""
    if len(seen) != users:
        raise ValueError(f"seen items of {len(seen)} users, expected {users}")
    for name, positions in {"target": targets, "seen": concatenate_rows(seen)[1]}.items():
        if positions is not None and len(positions) and (positions.min() < 0 or positions.max() >= items):
            raise ValueError(
                f"{name} positions {positions.min()}..{positions.max()} are outside the catalogue 0..{items - 1}"
            )
