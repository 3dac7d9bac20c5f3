"""Vectors with co-visits: scores, ranks and top lists of whole catalogues, some users at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from learn_spark.core.ragged import take_rows
from learn_spark.model.reranking.co_visitation import CoVisits, Transitions
from learn_spark.model.reranking.head import RerankerHead
from learn_spark.model.reranking.refinement import BestItems, best_items
from learn_spark.model.scoring.catalogue import check_positions
from learn_spark.model.scoring.frequency import knot_weights
from learn_spark.model.scoring.queries import BLOCK_SCORES, QueryBatch
from learn_spark.model.scoring.ranks import ranks_in
from learn_spark.model.towers.bound import BoundTower
from learn_spark.model.towers.tower import Tower
from learn_spark.model.towers.vectors import item_vectors, unit_rows

HIDDEN = -1e4  # the score of items that are not ranked: finite, because gradients pass through it


@dataclass(frozen=True)
class ScoredBatch:
    """The inputs of a head for some users.

    ``logits`` [B, N] are log-probabilities by the vectors, ``co_visits`` the candidates, ``similarity`` [M] each
    candidate's similarity to the user's last item, ``likeness`` [B, N] the cosine of contents where there is content,
    and ``hidden`` the rows and positions [H] that are not ranked.
    """

    logits: torch.Tensor
    co_visits: CoVisits
    similarity: torch.Tensor
    likeness: torch.Tensor | None
    hidden: tuple[torch.Tensor, torch.Tensor]

    def take(self, rows: np.ndarray) -> ScoredBatch:
        """The inputs of the users ``rows`` [R]."""
        users = len(self.logits)
        candidates, row = _values_of_rows(self.co_visits.row, users, rows)
        hidden, hidden_row = _values_of_rows(self.hidden[0].numpy(), users, rows)
        co_visits = CoVisits(row, self.co_visits.position[candidates], self.co_visits.features[candidates])
        return ScoredBatch(
            self.logits[rows],
            co_visits,
            self.similarity[candidates],
            None if self.likeness is None else self.likeness[rows],
            (torch.from_numpy(hidden_row), self.hidden[1][hidden]),
        )


def _values_of_rows(row: np.ndarray, n_rows: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(places in ``row``, an increasing array, of the values of ``rows`` [R]; the number in ``rows`` of each)."""
    places, offsets = take_rows(np.searchsorted(row, np.arange(n_rows + 1)), rows)
    return places, np.repeat(np.arange(len(rows)), np.diff(offsets))


class Reranker:
    """Scores users by a ``catalogue`` [N, D] of item vectors, ``temperature``, ``transitions`` and ``content`` [N, C].

    A user's content is the mean of that of their last events; ``content`` is None where the tower reads none. Users are
    processed in blocks of about BLOCK_SCORES scores, so that memory does not grow with their number. Raises ValueError
    where catalogue, transitions and content have different numbers of items.
    """

    def __init__(
        self,
        catalogue: np.ndarray,
        temperature: float,
        transitions: Transitions,
        content: np.ndarray | None = None,
    ) -> None:
        if len(catalogue) != len(transitions.counts):
            raise ValueError(
                f"transitions of {len(transitions.counts)} items, expected {len(catalogue)} as in the catalogue"
            )
        if content is not None and len(content) != len(catalogue):
            raise ValueError(f"content of {len(content)} items, expected {len(catalogue)} as in the catalogue")
        self.catalogue, self.temperature, self.transitions = torch.from_numpy(catalogue), temperature, transitions
        self._events = torch.from_numpy(knot_weights(transitions.counts))
        self._unit = torch.from_numpy(unit_rows(catalogue))
        self._content = None if content is None else torch.from_numpy(unit_rows(content.astype(np.float32)))

    @classmethod
    def of(
        cls,
        tower: Tower,
        vectors: Tower,
        temperature: float,
        transitions: Transitions,
        catalogue: np.ndarray | None = None,
    ) -> Reranker:
        """The reranker upon ``vectors``, which are those of ``tower`` or blend them, and the content that ``tower``
        reads. ``temperature``: that of ``vectors``; ``catalogue``: the item vectors (None: they are computed).
        """
        content = tower.bound[1:] if isinstance(tower, BoundTower) else None
        items = item_vectors(vectors) if catalogue is None else catalogue
        return cls(items, temperature, transitions, content)

    @property
    def block(self) -> int:
        """Number of users that are scored at once."""
        return max(1, BLOCK_SCORES // len(self.catalogue))

    def score(self, head: RerankerHead, queries: QueryBatch) -> torch.Tensor:
        """Scores [B, N] by ``head``, and by its second head where it has one; HIDDEN for items that are not ranked."""
        if head.refining is None:
            return self.apply(head, self.prepare(queries))
        best = self.best(head, queries, head.refining.items)
        return best.refined(head.refining)

    def best(self, head: RerankerHead, queries: QueryBatch, items: int) -> BestItems:
        """The ``items`` best of each user by ``head``, without its second head, with the inputs of a second head."""
        scored = self.prepare(queries)
        scores = torch.log_softmax(self.apply(head, scored), dim=1)
        scores = scores.index_put(scored.hidden, scores.new_tensor(HIDDEN))
        return best_items(scores, scored.logits, queries, self.transitions, self._content, items=items, lowest=HIDDEN)

    def apply(self, head: RerankerHead, scored: ScoredBatch) -> torch.Tensor:
        """Scores [B, N] by ``head`` of the result of ``prepare``."""
        scores = head(scored.logits, self._events, scored.co_visits, scored.similarity, scored.likeness)
        # Set again, because a head may have changed HIDDEN.
        return scores.index_put(scored.hidden, scores.new_tensor(HIDDEN))

    def prepare(self, queries: QueryBatch) -> ScoredBatch:
        """The inputs of a head, the same for every head. Raises ValueError for positions outside the catalogue."""
        check_positions(len(queries.users), len(self.catalogue), queries.targets, queries.hidden)
        products = torch.from_numpy(queries.users) @ self.catalogue.T / self.temperature
        unranked = queries.unranked(len(self.catalogue))
        products[unranked] = HIDDEN
        logits = torch.log_softmax(products, dim=1)
        co_visits = self.transitions.candidates(queries.items, queries.lengths, queries.fresh)
        last = queries.items[np.arange(len(queries.lengths)), np.maximum(queries.lengths, 1) - 1]
        similarities = self._unit[torch.from_numpy(last)] @ self._unit.T
        similarity = similarities[torch.from_numpy(co_visits.row), torch.from_numpy(co_visits.position)]
        return ScoredBatch(logits, co_visits, similarity, self._likeness(queries), unranked)

    def _likeness(self, queries: QueryBatch) -> torch.Tensor | None:
        """Cosines [B, N] of the mean content of each user's events with the catalogue's content; 0 without events."""
        if self._content is None:
            return None
        inside = torch.from_numpy(np.arange(queries.items.shape[1]) < queries.lengths[:, None])
        events = torch.from_numpy(np.where(inside.numpy(), queries.items, 0))
        means = (self._content[events] * inside.unsqueeze(2)).sum(dim=1)
        return torch.nn.functional.normalize(means, dim=1) @ self._content.T

    def ranks(
        self, head: RerankerHead, queries: QueryBatch, advance: Callable[[int], object] = lambda count: None
    ) -> np.ndarray:
        """Ranks [T] float64 of the targets by the rule of model/scoring/ranks.py, of float32 scores.

        ``advance`` receives numbers of finished users. Raises ValueError for positions outside the catalogue.
        """
        ranks = np.empty(len(queries.targets))
        for rows, scores in self._blocks(head, queries):
            block_queries = queries.take(rows)
            target_rows = np.arange(queries.offsets[rows[0]], queries.offsets[rows[-1] + 1])
            for begin in range(0, len(target_rows), self.block):
                places = slice(begin, begin + self.block)
                ranks[target_rows[places]] = ranks_in(
                    scores[block_queries.owners[places]], block_queries.targets[places]
                )
            advance(len(rows))
        return ranks

    def top(self, head: RerankerHead, queries: QueryBatch, k: int) -> np.ndarray:
        """Positions [B, k] of the best items that are not hidden, best first; -1 where there are fewer.

        Equal scores are ordered by position. Raises ValueError for positions outside the catalogue.
        """
        size = min(k, len(self.catalogue))
        positions = np.full((len(queries.users), k), -1, dtype=np.int64)
        for rows, scores in self._blocks(head, queries):
            for row, hidden in zip(rows, queries.take(rows).hidden, strict=True):
                user_scores = scores[row - rows[0]]
                user_scores[hidden] = -np.inf
                # All items that score at least as the size-th does, so that ties are ordered by position.
                threshold = np.partition(user_scores, len(user_scores) - size)[len(user_scores) - size]
                order = np.flatnonzero(user_scores >= threshold)
                order = order[np.argsort(-user_scores[order], kind="stable")][:size]
                positions[row, :size] = np.where(np.isfinite(user_scores[order]), order, -1)
        return positions

    @torch.inference_mode()
    def _blocks(self, head: RerankerHead, queries: QueryBatch) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(rows, scores [rows, N]) of the users, block by block."""
        for start in range(0, len(queries.users), self.block):
            rows = np.arange(start, min(start + self.block, len(queries.users)))
            yield rows, self.score(head, queries.take(rows)).numpy()


def ranks_of_users(
    rerankers: Sequence[Reranker],
    heads_of_users: Sequence[tuple[np.ndarray, RerankerHead]],
    queries: QueryBatch,
    advance: Callable[[int], object] = lambda count: None,
) -> np.ndarray:
    """``Reranker.ranks`` [T] with the users of each head given by ``heads_of_users``
    (CrossFittedHeads.heads_of_users), and a reranker of each head.
    """
    ranks = np.empty(len(queries.targets))
    for reranker, (rows, head) in zip(rerankers, heads_of_users, strict=True):
        ranks[np.isin(queries.owners, rows)] = reranker.ranks(head, queries.take(rows), advance)
    return ranks
