"""The first-order Markov baseline: the items that most often came next after the user's last item."""

from __future__ import annotations

import numpy as np

from learn_spark.core.ragged import check_ragged
from learn_spark.evaluation.counts import CountScores

HIGHEST = 1 << 62  # of a score in int64


class PairCounts:
    """Counts of consecutive pairs (i, j) of items, added part by part.

    Sorted runs of distinct pairs are merged when the last one is no longer small beside the one before it, so that a
    pair is copied about log2(parts) times. Memory: 16 bytes a distinct pair, and as much again in a merge.
    """

    def __init__(self, n_items: int) -> None:
        self._n_items = n_items
        self._runs: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, values: np.ndarray, offsets: np.ndarray) -> None:
        """Count the pairs of consecutive events within ``values[offsets[u] : offsets[u + 1]]`` of each row u."""
        items = values.astype(np.int64)
        same_row = np.ones(len(items), dtype=bool)  # [events]: whether the event follows one of the same row
        same_row[offsets[:-1][offsets[:-1] < len(items)]] = False
        after = np.flatnonzero(same_row)
        self._runs.append(np.unique(items[after - 1] * self._n_items + items[after], return_counts=True))
        while len(self._runs) > 1 and 2 * len(self._runs[-1][0]) >= len(self._runs[-2][0]):
            self._merge_last()

    def merged(self) -> tuple[np.ndarray, np.ndarray]:
        """(i * n_items + j of each distinct pair [P], increasing; its count [P]), int64."""
        while len(self._runs) > 1:
            self._merge_last()
        return self._runs[0] if self._runs else (np.zeros(0, np.int64), np.zeros(0, np.int64))

    def _merge_last(self) -> None:
        (first, first_counts), (second, second_counts) = self._runs.pop(), self._runs.pop()
        keys = np.concatenate([first, second])
        order = np.argsort(keys, kind="stable")
        keys, counts = keys[order], np.concatenate([first_counts, second_counts])[order]
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        self._runs.append((keys[starts], np.add.reduceat(counts, starts) if len(starts) else counts))


def markov(values: np.ndarray, offsets: np.ndarray, n_items: int) -> CountScores:
    """``markov_of_pairs`` of the events ``values[offsets[u] : offsets[u + 1]]`` of each user u.

    Raises ValueError for positions outside 0..n_items-1 and offsets that do not cover the values.
    """
    check_ragged(values, offsets, n_items)
    pairs = PairCounts(n_items)
    pairs.add(values, offsets)
    return markov_of_pairs(*pairs.merged(), np.bincount(values, minlength=n_items).astype(np.int64))


def markov_of_pairs(pairs: np.ndarray, counts: np.ndarray, popularity: np.ndarray) -> CountScores:
    """Scores after a user's last item i: count(i -> j) * (1 + total popularity) + popularity(j).

    ``pairs`` [P] and ``counts`` [P] are those of ``PairCounts.merged``, ``popularity`` [N] the events of each item. The
    second term is smaller than one transition, so it orders only items with equally many transitions. Where int64 could
    not represent the scores, the places of the items' popularities in their order take the place of the popularities:
    no order and no tie changes.
    """
    n_items = len(popularity)
    base, weight = popularity, 1 + int(popularity.sum())
    if int(counts.max(initial=0)) * weight >= HIGHEST:
        base = np.unique(popularity, return_inverse=True)[1].astype(np.int64)
        weight = 1 + int(base.max())
    starts = np.searchsorted(pairs, np.arange(n_items + 1, dtype=np.int64) * n_items)
    return CountScores(base, starts, pairs % n_items, counts * weight)
