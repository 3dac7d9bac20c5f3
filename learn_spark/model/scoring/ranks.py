"""Exact ranks of targets in the whole catalogue, with a stated tie rule.

Rank = 1 + (unseen items that score higher) + 0.5 * (other unseen items that score the same), where scores within
TIE_TOLERANCE of the target's are the same. Seen items do not count; targets always do, a user's other targets too.
Items are positions 0..N-1.

Ranks are counted, not searched: the product of a block of users and a block of items, small enough to stay in cache, is
compared with the targets' scores and discarded. Ranks of any depth take memory that depends on neither the catalogue
nor the users, and less time than a search for the best few hundred items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from learn_spark.core.machine import available_cores
from learn_spark.core.ragged import concatenate_rows
from learn_spark.model.scoring.catalogue import Catalogue, check_positions

TIE_TOLERANCE = 1e-6
ROUNDINGS = 4
BLOCK_USERS = 128
BLOCK_ITEMS = 8 * 255  # see _count


def ranks_from_vectors(
    users: np.ndarray,
    items: np.ndarray,
    targets: np.ndarray,
    seen: Sequence[np.ndarray],
    *,
    offsets: np.ndarray | None = None,
    threads: int | None = None,
    advance: Callable[[int], object] = lambda count: None,
) -> np.ndarray:
    """Ranks [T] float64 of ``targets`` [T] by the inner products of ``users`` [B, D] and ``items`` [N, D].

    User i has the distinct targets ``targets[offsets[i] : offsets[i + 1]]``; without ``offsets`` each user has one.
    ``seen[i]`` are the positions that user i had before. Vectors are taken as float32; scores close to the target's are
    computed again in float64, so that rounding of the products decides nothing. ``advance`` receives numbers of
    finished users, always in the calling thread.

    Raises ValueError for shapes that do not fit, positions outside 0..N-1, and vectors that are not finite.
    """
    offsets = np.arange(len(users) + 1) if offsets is None else offsets
    if offsets.shape != (len(users) + 1,) or targets.shape != (offsets[-1],):
        raise ValueError(f"expected targets [{offsets[-1]}] of {len(users)} users, got {targets.shape}")
    catalogue = Catalogue(users, items)
    check_positions(len(users), len(items), targets, seen)
    ranks = np.empty(len(targets))
    # Users with many targets first, so that in a block those with a j-th target are its first rows.
    order = np.argsort(-np.diff(offsets), kind="stable")
    blocks = [order[start : start + BLOCK_USERS] for start in range(0, len(order), BLOCK_USERS)]

    def rank(rows: np.ndarray) -> int:
        block = _Block.of(catalogue, rows, targets, offsets, [seen[i] for i in rows])
        ranks[offsets[rows][block.row] + block.turn] = block.ranks(catalogue)
        return len(rows)

    with ThreadPoolExecutor(threads or len(available_cores())) as pool:
        for count in pool.map(rank, blocks):
            advance(count)
    return ranks


def ranks_in(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Ranks [T] of ``targets`` [T] (positions) in rows of finished ``scores`` [T, N], by the same rule.

    Items that are not ranked have a score far below all others. Differences are computed in the scores' precision; for
    large scores, differences of up to ROUNDINGS units in the last place count as ties.
    """
    target_scores = np.take_along_axis(scores, targets[:, None], axis=1)
    differences, tolerance = (
        scores - target_scores,
        np.maximum(TIE_TOLERANCE, ROUNDINGS * np.spacing(np.abs(target_scores))),
    )
    same = (np.abs(differences) <= tolerance).sum(axis=1) - 1
    ranks: np.ndarray = 1.0 + (differences > tolerance).sum(axis=1) + 0.5 * same
    return ranks


@dataclass(frozen=True)
class _Block:
    """Some users, those with more targets first, and their P targets by turn: all first ones, then all second ones.

    ``row`` [P] in the block, ``turn`` [P], ``position`` [P], ``score`` [P] exact, ``band`` [P] the distance from it
    within which a float32 score is uncertain; ``hidden_row`` and ``hidden`` [H] the seen items that are no targets, by
    position.
    """

    users: np.ndarray
    row: np.ndarray
    turn: np.ndarray
    position: np.ndarray
    score: np.ndarray
    band: np.ndarray
    hidden_row: np.ndarray
    hidden: np.ndarray

    @classmethod
    def of(
        cls,
        catalogue: Catalogue,
        users: np.ndarray,
        targets: np.ndarray,
        offsets: np.ndarray,
        seen: Sequence[np.ndarray],
    ) -> _Block:
        counts = np.diff(offsets)[users]
        turn = np.repeat(np.arange(counts.max(initial=0)), [(counts > j).sum() for j in range(counts.max(initial=0))])
        row = np.arange(len(turn)) - np.searchsorted(turn, turn)
        position = targets[offsets[users][row] + turn].astype(np.int64)
        hidden_row, hidden = concatenate_rows(seen)
        n_items = len(catalogue.items)
        unranked = ~np.isin(hidden_row * n_items + hidden, row * n_items + position)
        by_item = np.argsort(hidden[unranked], kind="stable")
        return cls(
            users,
            row,
            turn,
            position,
            catalogue.exact(users[row], position),
            TIE_TOLERANCE + catalogue.slack(users)[row],
            hidden_row[unranked][by_item],
            hidden[unranked][by_item],
        )

    def ranks(self, catalogue: Catalogue) -> np.ndarray:
        """Ranks [P]."""
        higher, same = np.zeros(len(self.row)), np.zeros(len(self.row))
        vectors = catalogue.users[self.users]
        upper, lower = ((self.score + sign * self.band).astype(np.float32)[:, None] for sign in (1, -1))
        turns = np.searchsorted(self.turn, np.arange(self.turn.max(initial=-1) + 2))
        scores = np.empty((len(self.users), BLOCK_ITEMS), np.float32)
        above, near = (np.zeros((len(self.users), BLOCK_ITEMS), dtype=bool) for _ in range(2))
        for start in range(0, len(catalogue.items), BLOCK_ITEMS):
            part = catalogue.items[start : start + BLOCK_ITEMS]
            np.matmul(vectors, part.T, out=scores[:, : len(part)])
            first, last = np.searchsorted(self.hidden, (start, start + BLOCK_ITEMS))
            scores[self.hidden_row[first:last], self.hidden[first:last] - start] = -np.inf
            scores[:, len(part) :] = -np.inf
            for begin, end in pairwise(turns):
                rows, pairs = slice(0, end - begin), slice(begin, end)
                certain = _count(np.greater(scores[rows], upper[pairs], out=above[rows]))
                possible = _count(np.greater_equal(scores[rows], lower[pairs], out=near[rows]))
                higher[pairs] += certain
                if unsure := np.flatnonzero(certain != possible).tolist():
                    rows_of_unsure, columns = np.nonzero(near[unsure] & ~above[unsure])
                    self._settle(catalogue, np.asarray(unsure)[rows_of_unsure] + begin, columns + start, higher, same)
        return 1.0 + higher + 0.5 * same

    def _settle(
        self, catalogue: Catalogue, pair: np.ndarray, item: np.ndarray, higher: np.ndarray, same: np.ndarray
    ) -> None:
        """Add the items [Q] that score close to the targets [Q] to the counts, by their exact scores."""
        other = self.position[pair] != item
        pair, item = pair[other], item[other]
        differences = catalogue.exact(self.users[self.row[pair]], item) - self.score[pair]
        higher += np.bincount(pair[differences > TIE_TOLERANCE], minlength=len(higher))
        same += np.bincount(pair[np.abs(differences) <= TIE_TOLERANCE], minlength=len(same))


def _count(flags: np.ndarray) -> np.ndarray:
    """True values in each row of [R, BLOCK_ITEMS] bool.

    It adds eight bytes at a time, 255 times, so that no byte overflows: four times as fast as numpy's count.
    """
    words = flags.view(np.uint64).sum(axis=1, dtype=np.uint64)
    return words.view(np.uint8).reshape(len(flags), 8).sum(axis=1, dtype=np.int64)
