"""Vectors blended by fold: each user is ranked with weights that were not fitted on that user."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from learn_spark.core.ragged import take_rows
from learn_spark.data.splits.folds import by_fold
from learn_spark.data.splits.split import Split
from learn_spark.model.scoring.ranks import ranks_from_vectors
from learn_spark.model.scoring.top_k import top_k
from learn_spark.model.towers.tower import Tower
from learn_spark.model.towers.vectors import item_vectors, user_vectors


@dataclass(frozen=True)
class FoldedVectors:
    """Users of a split ranked by fold: fold f's users by ``towers[f]``, with histories of at most ``window`` events.

    ``catalogues`` are the item vectors of each tower (None: they are computed).
    """

    split: Split
    towers: Sequence[Tower]
    window: int
    catalogues: Sequence[np.ndarray] | None = None

    @cached_property
    def _users(self) -> list[np.ndarray]:
        """The vectors of each fold's users, in the order of ``by_fold``."""
        split = self.split
        return [
            user_vectors(tower, split.items[rows], split.lengths[rows], self.window, times=split.times[rows])
            for tower, rows in zip(self.towers, by_fold(split.user_ids), strict=True)
        ]

    @cached_property
    def _items(self) -> Sequence[np.ndarray]:
        return [item_vectors(tower) for tower in self.towers] if self.catalogues is None else self.catalogues

    def _parts(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(row numbers of its users, their vectors, the items' vectors) of each fold."""
        return zip(by_fold(self.split.user_ids), self._users, self._items, strict=True)

    def ranks(self, hidden: Sequence[np.ndarray], advance: Callable[[int], object]) -> np.ndarray:
        """Ranks [T] float64 of the split's targets; ``hidden`` [B] are positions that are not ranked."""
        targets = self.split.every_target
        ranks = np.empty(len(targets.positions))
        for rows, users, items in self._parts():
            target_rows, offsets = take_rows(targets.offsets, rows)
            seen = [hidden[row] for row in rows]
            ranks[target_rows] = ranks_from_vectors(
                users, items, targets.positions[target_rows], seen, offsets=offsets, advance=advance
            )
        return ranks

    def top(self, rows: np.ndarray, k: int, hidden: Sequence[np.ndarray]) -> np.ndarray:
        """Positions [R, k] of the best items of the users ``rows`` [R], whose ``hidden`` is given; -1 where there are
        fewer.
        """
        positions = np.empty((len(rows), k), dtype=np.int64)
        for fold_rows, users, items in self._parts():
            places = np.flatnonzero(np.isin(rows, fold_rows))
            if len(places):
                vectors = users[np.searchsorted(fold_rows, rows[places])]
                positions[places] = top_k(vectors, items, k, [hidden[row] for row in places])[1]
        return positions
