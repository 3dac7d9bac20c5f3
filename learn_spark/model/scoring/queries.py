"""Users whose catalogue is to be scored: their vectors, recent items, targets, and the items that are not ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from learn_spark.core.ragged import concatenate_rows, take_rows
from learn_spark.data.splits.split import Split
from learn_spark.model.towers.vectors import windows

BLOCK_SCORES = 1 << 22  # users x items that are scored at once


@dataclass(frozen=True)
class QueryBatch:
    """Users before what they are to be offered: ``users`` [B, D] the tower's vectors, ``items`` [B, L] positions of
    their histories, ``lengths`` [B]; ``targets`` [T], user i's being ``targets[offsets[i] : offsets[i + 1]]``;
    ``hidden`` [B] the positions that are not ranked, targets always being; ``fresh`` [B] how many of a user's newest
    events the transitions have not counted (None: they have all).
    """

    users: np.ndarray
    items: np.ndarray
    lengths: np.ndarray
    targets: np.ndarray
    offsets: np.ndarray
    hidden: Sequence[np.ndarray]
    fresh: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> QueryBatch:
        """The users ``rows`` [R], and their targets."""
        at, offsets = take_rows(self.offsets, rows)
        hidden = [self.hidden[row] for row in rows]
        fresh = None if self.fresh is None else self.fresh[rows]
        return QueryBatch(
            self.users[rows], self.items[rows], self.lengths[rows], self.targets[at], offsets, hidden, fresh
        )

    @property
    def owners(self) -> np.ndarray:
        """The user of each target [T]."""
        return np.repeat(np.arange(len(self.users)), np.diff(self.offsets))

    def unranked(self, n_items: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows and positions [H] of what is hidden and no target, in a catalogue of ``n_items``."""
        row, position = concatenate_rows(self.hidden)
        free = ~np.isin(row * np.int64(n_items) + position, self.owners * np.int64(n_items) + self.targets)
        return torch.from_numpy(row[free]), torch.from_numpy(position[free])

    def weights(self, counts: np.ndarray, rare: float) -> tuple[np.ndarray, np.ndarray]:
        """Each target's share [T] of its user's, and what each user [B] weighs, where a target of an item with n of
        ``counts`` [N] weighs (1 + n) ^ -``rare``.
        """
        rarity = (1.0 + counts[self.targets]) ** -rare
        sums = np.bincount(self.owners, weights=rarity, minlength=len(self.users))
        return rarity / sums[self.owners], sums / np.diff(self.offsets)


def query_batch(split: Split, users: np.ndarray, hidden: Sequence[np.ndarray], reach: int) -> QueryBatch:
    """The users of ``split`` with their vectors ``users`` [B, D] and the last ``reach`` events of each.

    Co-visitation counts that are combined with it must be of the training events of the same histories.
    """
    lengths, items = windows(split.lengths, reach, split.items)
    every = split.every_target
    return QueryBatch(users, items.astype(np.int64) - 1, lengths, every.positions, every.offsets, hidden, split.fresh)
