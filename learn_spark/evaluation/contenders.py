"""The methods that an evaluation compares: count-based baselines, frozen embeddings, a trained model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from learn_spark.data.splits.folds import FOLDS
from learn_spark.data.splits.split import Split
from learn_spark.evaluation.counts import CountScores
from learn_spark.evaluation.results import VECTORS_ONLY
from learn_spark.model.blending.folded import FoldedVectors
from learn_spark.model.blending.tower import temperature_of
from learn_spark.model.reranking.co_visitation import Transitions
from learn_spark.model.reranking.head import CrossFittedHeads
from learn_spark.model.reranking.reranker import Reranker, ranks_of_users
from learn_spark.model.scoring.queries import query_batch
from learn_spark.model.scoring.ranks import ranks_from_vectors
from learn_spark.model.scoring.top_k import top_k
from learn_spark.model.store import Model
from learn_spark.model.towers.tower import Tower
from learn_spark.model.towers.vectors import item_vectors, mean_vectors, user_vectors

Advance = Callable[[int], object]


class Scorer(Protocol):
    """A method applied to the users of one split; each user's ``hidden`` positions are not ranked."""

    def ranks(self, hidden: Sequence[np.ndarray], advance: Advance) -> np.ndarray:
        """Ranks [T] of the split's targets by the rule of ranks.py; ``advance`` receives numbers of finished users."""

    def top(self, rows: np.ndarray, k: int, hidden: Sequence[np.ndarray]) -> np.ndarray:
        """Positions [R, k] of the best items of the users ``rows`` [R], whose ``hidden`` is given; -1 where there are
        fewer.
        """


@dataclass(frozen=True)
class Contender:
    """A method. ``model_id`` is the model's id, or the method's name where there is no model."""

    method: str
    model_id: str
    scorer: Callable[[Split], Scorer]


@dataclass(frozen=True)
class _CountScorer:
    """Scores by counts."""

    split: Split
    scores: CountScores

    @cached_property
    def _last(self) -> np.ndarray:
        """The position of each user's last item [B]."""
        return self.split.items[np.arange(len(self.split.lengths)), self.split.lengths - 1].astype(np.int64) - 1

    def ranks(self, hidden: Sequence[np.ndarray], advance: Advance) -> np.ndarray:
        targets = self.split.every_target
        ranks = self.scores.ranks(self._last, targets.positions, hidden, offsets=targets.offsets)
        advance(len(hidden))
        return ranks

    def top(self, rows: np.ndarray, k: int, hidden: Sequence[np.ndarray]) -> np.ndarray:
        return self.scores.top_k(self._last[rows], k, hidden)


@dataclass(frozen=True)
class _VectorScorer:
    """Scores by the inner products of ``users`` [B, D] and ``items`` [N, D]."""

    split: Split
    items: np.ndarray
    users: np.ndarray

    def ranks(self, hidden: Sequence[np.ndarray], advance: Advance) -> np.ndarray:
        targets = self.split.every_target
        return ranks_from_vectors(
            self.users, self.items, targets.positions, hidden, offsets=targets.offsets, advance=advance
        )

    def top(self, rows: np.ndarray, k: int, hidden: Sequence[np.ndarray]) -> np.ndarray:
        return top_k(self.users[rows], self.items, k, hidden)[1]


def counted(method: str, scores: CountScores) -> Contender:
    """A baseline that scores by counts: popularity or Markov."""
    return Contender(method, method, lambda split: _CountScorer(split, scores))


def frozen(unit: np.ndarray, window: int) -> Contender:
    """The untrained baseline by content ``unit`` [N + 1, C], L2-normalised.

    A user is the mean of the content of their last ``window`` items.
    """

    def scorer(split: Split) -> Scorer:
        return _VectorScorer(split, unit[1:], mean_vectors(unit, split.items, split.lengths, window))

    return Contender("frozen", "frozen", scorer)


def released_towers(model: Model, *, cross_fitted: bool = False) -> list[Tower]:
    """The towers of the model's released vectors: one, or with ``cross_fitted`` one of each fold where they differ.

    With ``cross_fitted``, no user is ranked with weights of blending that were fitted on them, as validation needs.
    """
    return [model.vectors(fold) for fold in range(FOLDS)] if model.folded and cross_fitted else [model.vectors()]


def trained(model: Model, *, cross_fitted: bool = False, catalogues: Sequence[np.ndarray] | None = None) -> Contender:
    """The model's vectors without its reranker, as they are released. The model's content must be bound.

    ``catalogues`` are the item vectors [N, D] of each of ``released_towers`` (None: they are computed).
    """
    towers = released_towers(model, cross_fitted=cross_fitted)
    vectors = [item_vectors(tower) for tower in towers] if catalogues is None else catalogues

    def scorer(split: Split) -> Scorer:
        if len(towers) > 1:
            return FoldedVectors(split, towers, model.window, vectors)
        users = user_vectors(towers[0], split.items, split.lengths, model.window, times=split.times)
        return _VectorScorer(split, vectors[0], users)

    method = model.method if model.reranker is None else f"{model.method}{VECTORS_ONLY}"
    return Contender(method, model.model_id, scorer)


@dataclass(frozen=True)
class _RerankedScorer:
    """Scores by a model's vectors and reranker."""

    split: Split
    rerankers: Sequence[Reranker]
    users: np.ndarray
    heads: CrossFittedHeads
    cross_fitted: bool
    reach: int

    def ranks(self, hidden: Sequence[np.ndarray], advance: Advance) -> np.ndarray:
        queries = query_batch(self.split, self.users, hidden, self.reach)
        heads = self.heads.heads_of_users(self.split.user_ids, folded=self.cross_fitted)
        return ranks_of_users(self.rerankers, heads, queries, advance)

    def top(self, rows: np.ndarray, k: int, hidden: Sequence[np.ndarray]) -> np.ndarray:
        hidden_of_users: list[np.ndarray] = [np.zeros(0, np.int64)] * len(self.users)
        for row, positions in zip(rows, hidden, strict=True):
            hidden_of_users[row] = positions
        queries = query_batch(self.split, self.users, hidden_of_users, self.reach)
        top = np.empty((len(rows), k), dtype=np.int64)
        heads = self.heads.heads_of_users([self.split.user_ids[row] for row in rows], folded=self.cross_fitted)
        for reranker, (places, head) in zip(self.rerankers, heads, strict=True):
            top[places] = reranker.top(head, queries.take(rows[places]), k)
        return top


def reranked_towers(model: Model, *, cross_fitted: bool = False) -> list[Tower]:
    """The towers whose vectors the model's reranker reads: one, or with ``cross_fitted`` one of each fold where they
    differ.
    """
    if cross_fitted and model.reranker is not None and model.reranker.blended:
        return [model.reranked_vectors(fold) for fold in range(FOLDS)]
    return [model.reranked_vectors()]


def reranked(
    model: Model, transitions: Transitions, catalogues: Sequence[np.ndarray], *, cross_fitted: bool
) -> Contender:
    """The model's vectors with its reranker.

    ``transitions`` count the training events of the histories that the splits come from; ``catalogues`` are the item
    vectors [N, D] of each of ``reranked_towers``. With ``cross_fitted``, no user is ranked by a head that was fitted on
    them, as validation needs.
    """
    fitted = model.reranker
    assert fitted is not None
    towers = reranked_towers(model, cross_fitted=cross_fitted)
    rerankers = [
        Reranker.of(model.tower, tower, temperature_of(tower, fitted.temperature), transitions, catalogue)
        for tower, catalogue in zip(towers, catalogues, strict=True)
    ]
    if cross_fitted and len(rerankers) == 1:
        rerankers *= FOLDS  # a head of each fold upon the same vectors

    def scorer(split: Split) -> Scorer:
        # The weights of blending are the items': a user's vector is the same for every fold.
        users = user_vectors(towers[0], split.items, split.lengths, model.window, times=split.times)
        return _RerankedScorer(split, rerankers, users, fitted.heads, cross_fitted, fitted.reach)

    return Contender(model.method, model.model_id, scorer)
