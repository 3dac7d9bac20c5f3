"""The first-order Markov baseline: the items that most often came next after the user's last item."""

from __future__ import annotations

import numpy as np

from learn_spark.core.ragged import check_ragged
from learn_spark.evaluation.counts import CountScores


def markov(values: np.ndarray, offsets: np.ndarray, n_items: int) -> CountScores:
    """Scores after a user's last item i: count(i -> j) * (1 + total popularity) + popularity(j).

    Counts are of consecutive events within ``values[offsets[u] : offsets[u + 1]]`` of each user u. The second term is
    smaller than one transition, so it orders only items with equally many transitions.

    Raises ValueError for positions outside 0..n_items-1 and offsets that do not cover the values.
    """
    check_ragged(values, offsets, n_items)
    items = values.astype(np.int64)
    same_user = np.ones(len(items), dtype=bool)  # [events]: whether the event follows one of the same user
    same_user[offsets[:-1][offsets[:-1] < len(items)]] = False
    after = np.flatnonzero(same_user)
    pairs, counts = np.unique(items[after - 1] * n_items + items[after], return_counts=True)
    starts = np.searchsorted(pairs, np.arange(n_items + 1, dtype=np.int64) * n_items)
    popularity = np.bincount(items, minlength=n_items).astype(np.int64)
    return CountScores(popularity, starts, pairs % n_items, counts * (1 + int(popularity.sum())))
