"""Few numbers of an exposure from released vectors: likeness to the user's last events, place in the list shown.

NaN is not known.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from learn_spark.ads.inputs.vectors import MASKED

NEAREST = ("mean", "most")  # product of the item's vector with those of the user's last events
PLACE = ("place", "above")  # of the score user . item in the list shown
SIMILARITIES = (*NEAREST, *PLACE)
GATHERED = 1 << 14  # products at once


def nearest_of(item: np.ndarray, recent: pa.ListArray, vectors: np.ndarray) -> np.ndarray:
    """NEAREST [n, 2] float32: mean and largest product of the vector of each ``item`` [n] with those of ``recent``.

    Both are rows of ``vectors`` [1 + R, D]; null counts as no event. NaN where the item has no vector, or no event one.
    """
    offsets = np.asarray(recent.offsets, np.int64)
    rows, starts = np.asarray(recent.values)[offsets[0] : offsets[-1]], offsets - offsets[0]
    of = np.repeat(np.arange(len(item)), np.diff(starts))
    products = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), GATHERED):
        part = slice(start, start + GATHERED)
        products[part] = np.einsum("nd,nd->n", vectors[item[of[part]]], vectors[rows[part]])
    nearest = np.full((len(item), len(NEAREST)), np.nan, np.float32)
    known = np.flatnonzero((np.diff(starts) > 0) & (item != MASKED))
    if len(known):
        has_event = np.flatnonzero(np.diff(starts) > 0)
        sums = np.add.reduceat(products, starts[has_event], dtype=np.float64)
        most = np.maximum.reduceat(products, starts[has_event])
        at = np.searchsorted(has_event, known)
        nearest[known] = np.stack([sums[at] / np.diff(starts)[known], most[at]], axis=1)
    return nearest


def place_of(score: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """PLACE [n, 2] float32 of the scores [n] among those of the same ``shown`` list [n] int.

    place: from -1 (lowest) to 1 (highest), equal scores share the mean of theirs; above: score minus the list's mean.
    Scores that are NaN are of no list; NaN for them, and for a list of one.
    """
    places = np.full((len(score), len(PLACE)), np.nan, np.float32)
    known = np.flatnonzero(np.isfinite(score))
    if not len(known):
        return places
    values = score[known].astype(np.float64)
    _, of, sizes = np.unique(shown[known], return_inverse=True, return_counts=True)
    order = np.lexsort((values, of))
    of, values = of[order], values[order]
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    begins = np.ones(len(order), bool)
    begins[1:] = (of[1:] != of[:-1]) | (values[1:] != values[:-1])
    tied = np.cumsum(begins) - 1
    middle = np.bincount(tied, np.arange(len(order)) - first[of]) / np.bincount(tied)
    size = sizes[of]
    place = np.where(size > 1, 2 * middle[tied] / np.maximum(size - 1, 1) - 1, np.nan)
    above = np.where(size > 1, values - (np.bincount(of, values) / sizes)[of], np.nan)
    places[known[order]] = np.stack([place, above], axis=1)
    return places


def score_of(user: np.ndarray, item: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The products [n] float32 of the vectors of ``user`` [n] and ``item`` [n]; NaN where one has none."""
    scores = np.empty(len(user), np.float32)
    for start in range(0, len(user), GATHERED):
        part = slice(start, start + GATHERED)
        scores[part] = np.einsum("nd,nd->n", vectors[user[part]], vectors[item[part]])
    scores[(user == MASKED) | (item == MASKED)] = np.nan
    return scores
