"""What is judged beside each other: baselines made of counts, the untrained embeddings, a trained tower."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from learn_spark.data.splits.folds import FOLDS
from learn_spark.data.splits.split import Split
from learn_spark.evaluation.counts import CountScores
from learn_spark.evaluation.results import ALONE
from learn_spark.model.blending.folded import FoldedVectors
from learn_spark.model.reranking.co_visitation import Transitions
from learn_spark.model.reranking.head import CrossFittedHeads
from learn_spark.model.reranking.reranker import Reranker
from learn_spark.model.scoring.queries import query_batch
from learn_spark.model.scoring.ranks import ranks_from_vectors
from learn_spark.model.scoring.top_k import top_k
from learn_spark.model.store import Model
from learn_spark.model.towers.vectors import item_vectors, mean_vectors, user_vectors

Advance = Callable[[int], object]


class Scorer(Protocol):
    """A contender before the users of one cut. ``hidden`` positions of each user are not ranked."""

    def ranks(self, hidden: Sequence[np.ndarray], advance: Advance) -> np.ndarray:
        """Ranks [T] of the cut's targets by the rule of ranks.py; ``advance`` is told how many users are done."""

    def top(self, rows: np.ndarray, k: int, hidden: Sequence[np.ndarray]) -> np.ndarray:
        """Positions [R, k] of what the users ``rows`` [R] are offered, -1 for nothing; ``hidden`` is theirs."""


@dataclass(frozen=True)
class Contender:
    """``model_id`` of the tower; the method's name for one without a tower."""

    method: str
    model_id: str
    scorer: Callable[[Split], Scorer]


@dataclass(frozen=True)
class _Counted:
    split: Split
    scores: CountScores

    @cached_property
    def _last(self) -> np.ndarray:
        """The position of each user's last item [B]."""
        return self.split.items[np.arange(len(self.split.lengths)), self.split.lengths - 1].astype(np.int64) - 1

    def ranks(self, hidden: Sequence[np.ndarray], advance: Advance) -> np.ndarray:
        every = self.split.every_target
        found = self.scores.ranks(self._last, every.positions, hidden, offsets=every.offsets)
        advance(len(hidden))
        return found

    def top(self, rows: np.ndarray, k: int, hidden: Sequence[np.ndarray]) -> np.ndarray:
        return self.scores.top_k(self._last[rows], k, hidden)


@dataclass(frozen=True)
class _Embedded:
    """Vectors of users [B, D] and items [N, D]."""

    split: Split
    items: np.ndarray
    users: np.ndarray

    def ranks(self, hidden: Sequence[np.ndarray], advance: Advance) -> np.ndarray:
        every = self.split.every_target
        return ranks_from_vectors(
            self.users, self.items, every.positions, hidden, offsets=every.offsets, advance=advance
        )

    def top(self, rows: np.ndarray, k: int, hidden: Sequence[np.ndarray]) -> np.ndarray:
        return top_k(self.users[rows], self.items, k, hidden)[1]


def counted(method: str, scores: CountScores) -> Contender:
    """Popularity or Markov."""
    return Contender(method, method, lambda split: _Counted(split, scores))


def frozen(unit: np.ndarray, window: int) -> Contender:
    """The untrained user: the mean of the L2-normalised content [N + 1, C] of its last ``window`` items."""

    def scorer(split: Split) -> Scorer:
        return _Embedded(split, unit[1:], mean_vectors(unit, split.items, split.lengths, window))

    return Contender("frozen", "frozen", scorer)


def trained(model: Model, *, folded: bool = False) -> Contender:
    """A model's vectors, its content bound; one that has evidence is judged without it, under another name. ``folded``:
    of one with fusion each user is judged by levels that were not fitted on him, as the validation split must be.
    """

    def scorer(split: Split) -> Scorer:
        if model.fusion is not None and folded:
            towers = [model.fusion.upon(model.tower, fold) for fold in range(FOLDS)]
            return FoldedVectors(split, towers, model.window)
        tower = model.vectors()
        users = user_vectors(tower, split.items, split.lengths, model.window, times=split.times)
        return _Embedded(split, item_vectors(tower), users)

    method = model.method if model.evidence is None else f"{model.method}{ALONE}"
    return Contender(method, model.model_id, scorer)


@dataclass(frozen=True)
class _Evident:
    split: Split
    reranker: Reranker
    users: np.ndarray
    heads: CrossFittedHeads
    folded: bool
    reach: int

    def ranks(self, hidden: Sequence[np.ndarray], advance: Advance) -> np.ndarray:
        queries = query_batch(self.split, self.users, hidden, self.reach)
        return self.reranker.cross_fitted_ranks(
            self.heads.heads_of_users(self.split.user_ids, folded=self.folded), queries, advance
        )

    def top(self, rows: np.ndarray, k: int, hidden: Sequence[np.ndarray]) -> np.ndarray:
        every: list[np.ndarray] = [np.zeros(0, np.int64)] * len(self.users)
        for row, own in zip(rows, hidden, strict=True):
            every[row] = own
        queries = query_batch(self.split, self.users, every, self.reach)
        found = np.empty((len(rows), k), dtype=np.int64)
        for part, head in self.heads.heads_of_users([self.split.user_ids[row] for row in rows], folded=self.folded):
            found[part] = self.reranker.top(head, queries.take(rows[part]), k)
        return found


def evident(model: Model, values: np.ndarray, offsets: np.ndarray, *, folded: bool) -> Contender:
    """A trained tower with its evidence, counted in ``values`` and ``offsets``: cuts.training_events of the histories
    that its cuts are of. ``folded``: each user is judged by a head that was not fitted on him, as the validation split
    must be.
    """
    found = model.evidence
    assert found is not None
    transitions = Transitions.of(values, offsets, model.tower.n_items, reach=found.reach, decay=found.decay)
    reranker = Reranker.of(model.tower, found.temperature, transitions)

    def scorer(split: Split) -> Scorer:
        users = user_vectors(model.tower, split.items, split.lengths, model.window, times=split.times)
        return _Evident(split, reranker, users, found.heads, folded, found.reach)

    return Contender(model.method, model.model_id, scorer)
