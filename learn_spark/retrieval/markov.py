"""The first-order Markov baseline: what most often came next after the user's last item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from learn_spark.retrieval.popularity import check_histories


@dataclass(frozen=True)
class Markov:
    """Counts of item-to-item transitions, sparse by row.

    After item i came ``following[starts[i] : starts[i + 1]]``, ``counts`` times each. ``popularity`` [N] breaks ties.
    """

    starts: np.ndarray
    following: np.ndarray
    counts: np.ndarray
    popularity: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray, offsets: np.ndarray, n_items: int) -> Markov:
        """Count pairs of consecutive events within ``values[offsets[u] : offsets[u + 1]]`` of each user u.

        Raises ValueError for positions outside 0..n_items-1 and offsets that do not cover the values.
        """
        check_histories(values, offsets, n_items)
        items = values.astype(np.int64)
        same_user = np.ones(len(items), dtype=bool)  # [events]: does the event follow one of the same user?
        same_user[offsets[:-1][offsets[:-1] < len(items)]] = False
        after = np.flatnonzero(same_user)
        pairs, counts = np.unique(items[after - 1] * n_items + items[after], return_counts=True)
        starts = np.searchsorted(pairs, np.arange(n_items + 1, dtype=np.int64) * n_items)
        return cls(starts, pairs % n_items, counts.astype(np.float64), np.bincount(items, minlength=n_items))

    def scores(self, last_items: np.ndarray) -> np.ndarray:
        """Scores [B, N] float64 after ``last_items`` [B]: count(last -> j) + popularity(j) / (1 + total popularity).

        The second part is below one, so it orders only items with equally many transitions, above all those with
        none. Raises ValueError for positions outside 0..N-1.
        """
        n_items = len(self.popularity)
        if len(last_items) and (last_items.min() < 0 or last_items.max() >= n_items):
            raise ValueError(f"positions {last_items.min()}..{last_items.max()} are outside 0..{n_items - 1}")
        scores = np.tile(self.popularity / (1.0 + self.popularity.sum()), (len(last_items), 1))
        for row, item in enumerate(last_items):
            inside = slice(self.starts[item], self.starts[item + 1])
            scores[row, self.following[inside]] += self.counts[inside]
        return scores
