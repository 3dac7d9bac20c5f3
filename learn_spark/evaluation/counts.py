"""Ranks and top-k lists by counts: a base count per item, and extra counts for items that followed a context.

No [B, N] array is built. The tie rule is that of ranks.py; counts are integers, so that ties are exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from learn_spark.core.ragged import concatenate_rows, owners_of
from learn_spark.model.scoring.catalogue import check_positions

BLOCK_PAIRS = 1 << 22  # pairs of a target and another item compared at once


@dataclass(frozen=True)
class CountScores:
    """Item j has the score ``base[j]`` after any context, plus an extra count after some contexts.

    After context c, ``extra[p]`` is added for item ``following[p]``, for each p of ``starts[c] : starts[c + 1]``, where
    ``following`` increases within a context. ``base`` [N]; all arrays are int64.
    """

    base: np.ndarray
    starts: np.ndarray
    following: np.ndarray
    extra: np.ndarray

    def ranks(
        self,
        contexts: np.ndarray,
        targets: np.ndarray,
        seen: Sequence[np.ndarray],
        *,
        offsets: np.ndarray | None = None,
    ) -> np.ndarray:
        """Ranks [T] float64 of ``targets`` [T] after the users' ``contexts`` [B], in the form of ranks_from_vectors.

        Raises ValueError for positions outside 0..N-1.
        """
        users, n_items = len(contexts), len(self.base)
        offsets = np.arange(users + 1) if offsets is None else offsets
        check_positions(users, n_items, targets, seen)
        self._check_contexts(contexts)
        owners = owners_of(offsets)
        seen_rows, seen_items = concatenate_rows(seen)
        hidden = np.setdiff1d(seen_rows * n_items + seen_items, owners * n_items + targets)  # without repeats
        hidden_starts = np.searchsorted(hidden, np.arange(users + 1) * n_items)
        sorted_base = np.sort(self.base)
        score = self._scores(contexts[owners], targets)
        right = np.searchsorted(sorted_base, score, side="right")
        higher, same = n_items - right, right - np.searchsorted(sorted_base, score, side="left")

        def count(pair: np.ndarray, scores: np.ndarray, sign: int) -> None:
            np.add.at(higher, pair, sign * (scores > score[pair]))
            np.add.at(same, pair, sign * (scores == score[pair]))

        for pair, place in _ranges(self.starts[contexts][owners], self.starts[contexts + 1][owners]):
            base = self.base[self.following[place]]
            count(pair, base, -1)
            count(pair, base + self.extra[place], 1)
        for pair, place in _ranges(hidden_starts[owners], hidden_starts[owners + 1]):
            count(pair, self._scores(contexts[owners[pair]], hidden[place] % n_items), -1)
        return 1.0 + higher + 0.5 * (same - 1)  # the target itself is among the same

    def top_k(self, contexts: np.ndarray, k: int, seen: Sequence[np.ndarray]) -> np.ndarray:
        """Positions [B, k] of the best unseen items after ``contexts`` [B]; -1 where there are fewer.

        Equal scores are ordered by position. Raises ValueError for positions outside 0..N-1.
        """
        check_positions(len(contexts), len(self.base), None, seen)
        self._check_contexts(contexts)
        order = np.argsort(-self.base, kind="stable")
        positions = np.full((len(contexts), k), -1, dtype=np.int64)
        for row, (context, hidden) in enumerate(zip(contexts, seen, strict=True)):
            pairs = slice(self.starts[context], self.starts[context + 1])
            candidates = order[: k + len(hidden) + pairs.stop - pairs.start]
            listed = np.setdiff1d(np.union1d(candidates, self.following[pairs]), hidden)
            scores = self._scores(np.full(len(listed), context), listed)
            best = listed[np.argsort(-scores, kind="stable")[:k]]
            positions[row, : len(best)] = best
        return positions

    def _scores(self, contexts: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Scores [P] of ``items`` [P] after ``contexts`` [P]."""
        n_items = len(self.base)
        scores = self.base[items]
        if len(self.following):
            keys = contexts.astype(np.int64) * n_items + items
            at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            scores = scores + np.where(self._keys[at] == keys, self.extra[at], 0)
        return scores

    @cached_property
    def _keys(self) -> np.ndarray:
        """An increasing number for each pair of a context and an item that followed it."""
        contexts = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        return contexts * np.int64(len(self.base)) + self.following

    def _check_contexts(self, contexts: np.ndarray) -> None:
        n_contexts = len(self.starts) - 1
        if len(contexts) and (contexts.min() < 0 or contexts.max() >= n_contexts):
            raise ValueError(f"contexts {contexts.min()}..{contexts.max()} are outside 0..{n_contexts - 1}")


def _ranges(starts: np.ndarray, stops: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(i, place) for every place of ``starts[i] : stops[i]``, about BLOCK_PAIRS at a time."""
    ends = np.cumsum(stops - starts)
    begin = 0
    while begin < len(starts):
        before = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + BLOCK_PAIRS, side="right")))
        sizes = (stops - starts)[begin:end]
        pair = np.repeat(np.arange(begin, end), sizes)
        yield pair, np.arange(len(pair)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + starts[pair]
        begin = end
