"""Vectors fitted by fold: each user is ranked by a tower that was not fitted on that user."""

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
    """Users of a split ranked by fold: fold f's users by ``towers[f]``, with histories of at most ``window`` events."""

    split: Split
    towers: Sequence[Tower]
    window: int

    @cached_property
    def _users(self) -> list[np.ndarray]:
        """The vectors of each fold's users, in the order of by_fold."""
        split = self.split
        return [
            user_vectors(tower, split.items[own], split.lengths[own], self.window, times=split.times[own])
            for tower, own in zip(self.towers, by_fold(split.user_ids), strict=True)
        ]

    @cached_property
    def _items(self) -> list[np.ndarray]:
        return [item_vectors(tower) for tower in self.towers]

    def _parts(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(its users by number, their vectors, the items') of each fold."""
        return zip(by_fold(self.split.user_ids), self._users, self._items, strict=True)

    def ranks(self, hidden: Sequence[np.ndarray], advance: Callable[[int], object]) -> np.ndarray:
        every = self.split.every_target
        found = np.empty(len(every.positions))
        for own, users, items in self._parts():
            at, offsets = take_rows(every.offsets, own)
            seen = [hidden[row] for row in own]
            found[at] = ranks_from_vectors(users, items, every.positions[at], seen, offsets=offsets, advance=advance)
        return found

    def top(self, rows: np.ndarray, k: int, hidden: Sequence[np.ndarray]) -> np.ndarray:
        found = np.empty((len(rows), k), dtype=np.int64)
        for own, users, items in self._parts():
            part = np.flatnonzero(np.isin(rows, own))
            if len(part):
                of_part = users[np.searchsorted(own, rows[part])]
                found[part] = top_k(of_part, items, k, [hidden[row] for row in part])[1]
        return found
