"""A tower with its evidence: scores, ranks and tops of whole catalogues, some users at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from learn_spark.evidence.head import EvidenceHead
from learn_spark.evidence.transitions import Transitions, similarities
from learn_spark.retrieval.catalogue import check_positions, joined
from learn_spark.retrieval.cuts import Cut
from learn_spark.retrieval.ranks import ranks_in
from learn_spark.retrieval.vectors import unit_rows, windows

BLOCK_SCORES = 1 << 22  # users x items that are scored at once
HIDDEN = -1e4  # the score of what is not ranked: finite, for a gradient passes it


@dataclass(frozen=True)
class Asked:
    """Users before what they are to be offered: ``users`` [B, D] the tower's vectors, ``items`` [B, L] positions of
    their histories, ``lengths`` [B]; ``targets`` [T], user i's being ``targets[offsets[i] : offsets[i + 1]]``;
    ``hidden`` [B] the positions that are not ranked, targets always being.
    """

    users: np.ndarray
    items: np.ndarray
    lengths: np.ndarray
    targets: np.ndarray
    offsets: np.ndarray
    hidden: Sequence[np.ndarray]

    def take(self, rows: np.ndarray) -> Asked:
        """The users ``rows`` [R], and their targets."""
        sizes = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        at = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], sizes)
        hidden = [self.hidden[row] for row in rows]
        return Asked(self.users[rows], self.items[rows], self.lengths[rows], self.targets[at], offsets, hidden)

    @property
    def owners(self) -> np.ndarray:
        """The user of each target [T]."""
        return np.repeat(np.arange(len(self.users)), np.diff(self.offsets))


def asked_on(cut: Cut, users: np.ndarray, hidden: Sequence[np.ndarray], reach: int) -> Asked:
    """The users of ``cut`` by their vectors ``users`` [B, D], with the last ``reach`` events of each."""
    lengths, items = windows(cut.lengths, reach, cut.items)
    every = cut.every_target
    return Asked(users, items.astype(np.int64) - 1, lengths, every.positions, every.offsets, hidden)


class Judge:
    """Scores users by the tower's ``catalogue`` [N, D], its ``temperature`` and ``transitions``.

    Work is done on blocks of about BLOCK_SCORES scores, so that memory does not grow with users. Raises ValueError
    where the catalogue and the transitions are not of the same items.
    """

    def __init__(self, catalogue: np.ndarray, temperature: float, transitions: Transitions) -> None:
        if len(catalogue) != len(transitions.counts):
            raise ValueError(f"{len(catalogue)} items, but transitions of {len(transitions.counts)}")
        self.catalogue, self.temperature, self.transitions = torch.from_numpy(catalogue), temperature, transitions
        self._log_counts = torch.from_numpy(np.log1p(transitions.counts).astype(np.float32))
        self._unit = unit_rows(catalogue)

    @property
    def block(self) -> int:
        """Users that are scored at once."""
        return max(1, BLOCK_SCORES // len(self.catalogue))

    def score(self, head: EvidenceHead, asked: Asked) -> torch.Tensor:
        """Scores [B, N]; about HIDDEN where nothing is ranked."""
        check_positions(len(asked.users), len(self.catalogue), asked.targets, asked.hidden)
        row, position = joined(asked.hidden)
        wanted = asked.owners * np.int64(len(self.catalogue)) + asked.targets
        free = ~np.isin(row * np.int64(len(self.catalogue)) + position, wanted)
        products = torch.from_numpy(asked.users) @ self.catalogue.T / self.temperature
        products[torch.from_numpy(row[free]), torch.from_numpy(position[free])] = HIDDEN
        logits = torch.log_softmax(products, dim=1)
        found = self.transitions.candidates(asked.items, asked.lengths)
        last = asked.items[np.arange(len(asked.lengths)), np.maximum(asked.lengths, 1) - 1]
        similarity = torch.from_numpy(similarities(self._unit, last[found.row], found.position))
        return head(logits, self._log_counts, found, similarity)

    def ranks(
        self, head: EvidenceHead, asked: Asked, advance: Callable[[int], object] = lambda count: None
    ) -> np.ndarray:
        """Ranks [T] float64 of the targets by the rule of retrieval/ranks.py, of scores in float32; ``advance`` is told
        how many users are done. Raises ValueError for positions outside the catalogue.
        """
        found = np.empty(len(asked.targets))
        for rows, scores in self._blocks(head, asked):
            part = asked.take(rows)
            at = np.arange(asked.offsets[rows[0]], asked.offsets[rows[-1] + 1])
            for begin in range(0, len(at), self.block):
                some = slice(begin, begin + self.block)
                found[at[some]] = ranks_in(scores[part.owners[some]], part.targets[some])
            advance(len(rows))
        return found

    def ranks_by(
        self,
        judges: Sequence[tuple[np.ndarray, EvidenceHead]],
        asked: Asked,
        advance: Callable[[int], object] = lambda count: None,
    ) -> np.ndarray:
        """``ranks`` where each of ``judges`` (Heads.judges) has users of its own."""
        found = np.empty(len(asked.targets))
        for rows, head in judges:
            found[np.isin(asked.owners, rows)] = self.ranks(head, asked.take(rows), advance)
        return found

    def top(self, head: EvidenceHead, asked: Asked, k: int) -> np.ndarray:
        """Positions [B, k] of the best items that are not hidden, best first, equal ones by position; -1 where there
        are fewer. Raises ValueError for positions outside the catalogue.
        """
        size = min(k, len(self.catalogue))
        found = np.full((len(asked.users), k), -1, dtype=np.int64)
        for rows, scores in self._blocks(head, asked):
            for row, hidden in zip(rows, asked.take(rows).hidden, strict=True):
                own = scores[row - rows[0]]
                own[hidden] = -np.inf
                # All that score as the size-th does, so that equal ones go by position.
                least = np.partition(own, len(own) - size)[len(own) - size]
                order = np.flatnonzero(own >= least)
                order = order[np.argsort(-own[order], kind="stable")][:size]
                found[row, :size] = np.where(np.isfinite(own[order]), order, -1)
        return found

    @torch.inference_mode()
    def _blocks(self, head: EvidenceHead, asked: Asked) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(asked.users), self.block):
            rows = np.arange(start, min(start + self.block, len(asked.users)))
            yield rows, self.score(head, asked.take(rows)).numpy()
