"""The best k items of the catalogue by exact FAISS search."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import faiss
import numpy as np

from learn_spark.core.ragged import concatenate_rows
from learn_spark.model.scoring.catalogue import Catalogue, check_positions

MARGIN = 16
GROWTH = 4


def top_k(
    users: np.ndarray,
    items: np.ndarray,
    k: int,
    seen: Sequence[np.ndarray],
    *,
    batch: int = 1024,
    advance: Callable[[int], object] = lambda count: None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k unseen items with the largest inner products: scores [B, k] float32 and positions [B, k] int64.

    They are ordered by score (computed in float64), largest first, then by position. Where a user has fewer than k
    unseen items, the rest are -inf and -1. A search too short to be certain is repeated with a larger size. ``advance``
    receives numbers of finished users. Raises ValueError for shapes that do not fit, positions outside 0..N-1, vectors
    that are not finite, and k or batch below 1.
    """
    if k < 1 or batch < 1:
        raise ValueError(f"k {k} and batch {batch} must be at least 1")
    catalogue = Catalogue(users, items)
    check_positions(len(users), len(items), None, seen)
    lengths = np.array([len(s) for s in seen], dtype=np.int64)
    scores = np.full((len(users), k), -np.inf, dtype=np.float32)
    positions = np.full((len(users), k), -1, dtype=np.int64)
    # Users with similarly many seen items share a batch, so that one long history does not lengthen every search.
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        advance(len(rows))
        size = min(len(items), k + int(lengths[rows].max()) + MARGIN)
        while len(rows):
            coarse, listed = search(catalogue.items, catalogue.users[rows], size)
            exact = catalogue.exact(np.repeat(rows, size), listed.reshape(-1)).reshape(listed.shape)
            exact[_is_seen(listed, [seen[i] for i in rows], len(items))] = -np.inf
            best = np.lexsort((listed, -exact), axis=1)[:, :k]
            exact, listed = np.take_along_axis(exact, best, axis=1), np.take_along_axis(listed, best, axis=1)
            if size == len(items):
                decided = np.ones(len(rows), dtype=bool)
            else:
                decided = coarse[:, -1] + catalogue.slack(rows) < exact[:, -1]
            done, width = rows[decided], exact.shape[1]
            scores[done, :width] = exact[decided]
            positions[done, :width] = np.where(np.isfinite(exact[decided]), listed[decided], -1)
            rows = rows[~decided]
            size = min(len(items), GROWTH * size)
    return scores, positions


def search(items: np.ndarray, users: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and positions [rows, size] as the float32 search finds them, best first; ``items`` are not copied."""
    scores, positions = faiss.knn(users, items, size, metric=faiss.METRIC_INNER_PRODUCT)
    return scores.astype(np.float64), positions


def _is_seen(listed: np.ndarray, seen: Sequence[np.ndarray], items: int) -> np.ndarray:
    """Whether each position of ``listed`` [B, K] is among its row's seen positions, [B, K] bool."""
    rows, positions = concatenate_rows(seen)
    keys = np.sort(rows * items + positions)
    if not len(keys):
        return np.zeros(listed.shape, dtype=bool)
    listed_keys = np.arange(len(seen))[:, None] * items + listed
    at = np.minimum(np.searchsorted(keys, listed_keys), len(keys) - 1)
    return keys[at] == listed_keys
