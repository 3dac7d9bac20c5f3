"""A tower with its evidence: scores, ranks and tops of whole catalogues, some users at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from learn_spark.model.reranking.co_visitation import CoVisits, Transitions
from learn_spark.model.reranking.head import RerankerHead
from learn_spark.model.scoring.catalogue import check_positions
from learn_spark.model.scoring.frequency import between_knots
from learn_spark.model.scoring.queries import BLOCK_SCORES, QueryBatch
from learn_spark.model.scoring.ranks import ranks_in
from learn_spark.model.towers.bound import BoundTower
from learn_spark.model.towers.tower import Tower
from learn_spark.model.towers.vectors import item_vectors, unit_rows

HIDDEN = -1e4  # the score of what is not ranked: finite, for a gradient passes it


@dataclass(frozen=True)
class ScoredBatch:
    """What is known of some users before a head weighs it: the tower's log-probabilities ``logits`` [B, N], the items
    ``found`` beside their events, ``similarity`` [M] of each to the user's last item, ``likeness`` [B, N] of the
    content, where there is any, and what is ``hidden``: rows and positions [H].
    """

    logits: torch.Tensor
    found: CoVisits
    similarity: torch.Tensor
    likeness: torch.Tensor | None
    hidden: tuple[torch.Tensor, torch.Tensor]


class Reranker:
    """Scores users by the tower's ``catalogue`` [N, D], its ``temperature``, ``transitions`` and, where there is any,
    the items' frozen ``content`` [N, C]: a user's is the mean of that of their last events.

    Work is done on blocks of about BLOCK_SCORES scores, so that memory does not grow with users. Raises ValueError
    where catalogue, transitions and content are not of the same items.
    """

    def __init__(
        self,
        catalogue: np.ndarray,
        temperature: float,
        transitions: Transitions,
        content: np.ndarray | None = None,
    ) -> None:
        if len(catalogue) != len(transitions.counts):
            raise ValueError(f"{len(catalogue)} items, but transitions of {len(transitions.counts)}")
        if content is not None and len(content) != len(catalogue):
            raise ValueError(f"{len(catalogue)} items, but content of {len(content)}")
        self.catalogue, self.temperature, self.transitions = torch.from_numpy(catalogue), temperature, transitions
        self._events = torch.from_numpy(between_knots(transitions.counts))
        self._unit = torch.from_numpy(unit_rows(catalogue))
        self._content = None if content is None else torch.from_numpy(unit_rows(content.astype(np.float32)))

    @classmethod
    def of(cls, tower: Tower, temperature: float, transitions: Transitions) -> Reranker:
        """Of a tower's item vectors and, where it reads any, its content."""
        content = tower.bound[1:] if isinstance(tower, BoundTower) else None
        return cls(item_vectors(tower), temperature, transitions, content)

    @property
    def block(self) -> int:
        """Users that are scored at once."""
        return max(1, BLOCK_SCORES // len(self.catalogue))

    def score(self, head: RerankerHead, queries: QueryBatch) -> torch.Tensor:
        """Scores [B, N]; HIDDEN where nothing is ranked."""
        return self.weigh(head, self.see(queries))

    def weigh(self, head: RerankerHead, seen: ScoredBatch) -> torch.Tensor:
        """``score`` of what ``see`` gave."""
        scores = head(seen.logits, self._events, seen.found, seen.similarity, seen.likeness)
        # Once more: a head may have weighed HIDDEN away.
        return scores.index_put(seen.hidden, scores.new_tensor(HIDDEN))

    def see(self, queries: QueryBatch) -> ScoredBatch:
        """What a head weighs, whichever it is."""
        check_positions(len(queries.users), len(self.catalogue), queries.targets, queries.hidden)
        products = torch.from_numpy(queries.users) @ self.catalogue.T / self.temperature
        unranked = queries.unranked(len(self.catalogue))
        products[unranked] = HIDDEN
        logits = torch.log_softmax(products, dim=1)
        found = self.transitions.candidates(queries.items, queries.lengths, queries.fresh)
        last = queries.items[np.arange(len(queries.lengths)), np.maximum(queries.lengths, 1) - 1]
        alike = self._unit[torch.from_numpy(last)] @ self._unit.T
        similarity = alike[torch.from_numpy(found.row), torch.from_numpy(found.position)]
        return ScoredBatch(logits, found, similarity, self._likeness(queries), unranked)

    def _likeness(self, queries: QueryBatch) -> torch.Tensor | None:
        """Cosines [B, N] of the mean content of each user's events with the catalogue's; 0 without events."""
        if self._content is None:
            return None
        inside = torch.from_numpy(np.arange(queries.items.shape[1]) < queries.lengths[:, None])
        events = torch.from_numpy(np.where(inside.numpy(), queries.items, 0))
        means = (self._content[events] * inside.unsqueeze(2)).sum(dim=1)
        return torch.nn.functional.normalize(means, dim=1) @ self._content.T

    def ranks(
        self, head: RerankerHead, queries: QueryBatch, advance: Callable[[int], object] = lambda count: None
    ) -> np.ndarray:
        """Ranks [T] float64 of the targets by the rule of model/scoring/ranks.py, of scores in float32; ``advance`` is
        told how many users are done. Raises ValueError for positions outside the catalogue.
        """
        found = np.empty(len(queries.targets))
        for rows, scores in self._blocks(head, queries):
            part = queries.take(rows)
            at = np.arange(queries.offsets[rows[0]], queries.offsets[rows[-1] + 1])
            for begin in range(0, len(at), self.block):
                some = slice(begin, begin + self.block)
                found[at[some]] = ranks_in(scores[part.owners[some]], part.targets[some])
            advance(len(rows))
        return found

    def cross_fitted_ranks(
        self,
        heads_of_users: Sequence[tuple[np.ndarray, RerankerHead]],
        queries: QueryBatch,
        advance: Callable[[int], object] = lambda count: None,
    ) -> np.ndarray:
        """``ranks`` where each of ``heads_of_users`` (CrossFittedHeads.heads_of_users) has users of its own."""
        found = np.empty(len(queries.targets))
        for rows, head in heads_of_users:
            found[np.isin(queries.owners, rows)] = self.ranks(head, queries.take(rows), advance)
        return found

    def top(self, head: RerankerHead, queries: QueryBatch, k: int) -> np.ndarray:
        """Positions [B, k] of the best items that are not hidden, best first, equal ones by position; -1 where there
        are fewer. Raises ValueError for positions outside the catalogue.
        """
        size = min(k, len(self.catalogue))
        found = np.full((len(queries.users), k), -1, dtype=np.int64)
        for rows, scores in self._blocks(head, queries):
            for row, hidden in zip(rows, queries.take(rows).hidden, strict=True):
                own = scores[row - rows[0]]
                own[hidden] = -np.inf
                # All that score as the size-th does, so that equal ones go by position.
                least = np.partition(own, len(own) - size)[len(own) - size]
                order = np.flatnonzero(own >= least)
                order = order[np.argsort(-own[order], kind="stable")][:size]
                found[row, :size] = np.where(np.isfinite(own[order]), order, -1)
        return found

    @torch.inference_mode()
    def _blocks(self, head: RerankerHead, queries: QueryBatch) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(queries.users), self.block):
            rows = np.arange(start, min(start + self.block, len(queries.users)))
            yield rows, self.score(head, queries.take(rows)).numpy()
