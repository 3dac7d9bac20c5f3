"""The popularity baseline: every user gets the items with the most training events."""

from __future__ import annotations

import numpy as np

from learn_spark.core.ragged import check_ragged
from learn_spark.evaluation.counts import CountScores


def popularity(values: np.ndarray, offsets: np.ndarray, n_items: int) -> CountScores:
    """Scores by training events; user u has the items ``values[offsets[u] : offsets[u + 1]]``.

    Raises ValueError for positions outside 0..n_items-1 and offsets that do not cover the values.
    """
    check_ragged(values, offsets, n_items)
    return popularity_of_counts(np.bincount(values, minlength=n_items).astype(np.int64))


def popularity_of_counts(counts: np.ndarray) -> CountScores:
    """Scores by the training events ``counts`` [N]; every item is a context with the same scores."""
    nothing = np.zeros(0, np.int64)
    return CountScores(counts, np.zeros(len(counts) + 1, np.int64), nothing, nothing)
