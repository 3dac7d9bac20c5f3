"""Users whose catalogue is scored: their vectors, recent items, targets, and the items that are not ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from learn_spark.core.ragged import concatenate_rows, owners_of, take_rows
from learn_spark.data.splits.split import Split
from learn_spark.model.towers.vectors import windows

BLOCK_SCORES = 1 << 22  # users x items scored at once


@dataclass(frozen=True)
class QueryBatch:
    """Users at the time of a query.

    ``users`` [B, D] are the tower's vectors, ``items`` [B, L] positions of their histories, ``lengths`` [B]. Of
    ``targets`` [T], user i has ``targets[offsets[i] : offsets[i + 1]]``. ``hidden`` [B] are the positions that are not
    ranked; targets always are. ``fresh`` [B] is the number of a user's newest events that are not counted in the
    transitions (None: 0).
    """

    users: np.ndarray
    items: np.ndarray
    lengths: np.ndarray
    targets: np.ndarray
    offsets: np.ndarray
    hidden: Sequence[np.ndarray]
    fresh: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> QueryBatch:
        """The batch of the users ``rows`` [R] and their targets."""
        target_rows, offsets = take_rows(self.offsets, rows)
        hidden = [self.hidden[row] for row in rows]
        fresh = None if self.fresh is None else self.fresh[rows]
        return QueryBatch(
            self.users[rows], self.items[rows], self.lengths[rows], self.targets[target_rows], offsets, hidden, fresh
        )

    def within(self, positions: np.ndarray) -> QueryBatch:
        """The batch over the catalogue's rows ``positions`` [S], increasing.

        Targets and hidden items are numbered among them, and hidden ones outside are left out. ``items`` keep their
        positions in the whole catalogue.

        Raises ValueError where a target is not among ``positions``.
        """
        rows, places = places_among(self.hidden, positions)
        starts = np.searchsorted(rows, np.arange(1, len(self.hidden)))
        targets = np.searchsorted(positions, self.targets)
        if not np.array_equal(positions[np.minimum(targets, len(positions) - 1)], self.targets):
            raise ValueError(f"{len(positions)} positions of a catalogue lack targets")
        return replace(self, targets=targets, hidden=np.split(places, starts))

    @property
    def owners(self) -> np.ndarray:
        """The user of each target [T]."""
        return owners_of(self.offsets)

    def unranked(self, n_items: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows and positions [H] of hidden items that are not targets, in a catalogue of ``n_items``."""
        row, position = concatenate_rows(self.hidden)
        is_unranked = ~np.isin(row * np.int64(n_items) + position, self.owners * np.int64(n_items) + self.targets)
        return torch.from_numpy(row[is_unranked]), torch.from_numpy(position[is_unranked])

    def weights(self, importance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(each target's share [T] of its user's weight, each user's weight [B], the mean over their targets) by the
        ``importance`` [N] of their items.
        """
        by_target = importance[self.targets]
        totals = np.bincount(self.owners, weights=by_target, minlength=len(self.users))
        return by_target / totals[self.owners], totals / np.diff(self.offsets)


def places_among(hidden: Sequence[np.ndarray], positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows, places [H] among the increasing ``positions``) of those ``hidden`` positions [B] that are among them."""
    rows, found = concatenate_rows(hidden)
    places = np.minimum(np.searchsorted(positions, found), len(positions) - 1)
    inside = positions[places] == found
    return rows[inside], places[inside]


def rarity(counts: np.ndarray, rare: float) -> np.ndarray:
    """The importance [N] of targets of items with ``counts`` [N] events: (1 + n) ^ -``rare``."""
    importance: np.ndarray = (1.0 + counts) ** -rare
    return importance


def query_batch(split: Split, users: np.ndarray, hidden: Sequence[np.ndarray], window: int) -> QueryBatch:
    """The users of ``split`` with their vectors ``users`` [B, D] and the last ``window`` events of each.

    Co-visitation counts that are combined with it must be of the training events of the same histories.
    """
    lengths, items = windows(split.lengths, window, split.items)
    targets = split.every_target
    return QueryBatch(
        users, items.astype(np.int64) - 1, lengths, targets.positions, targets.offsets, hidden, split.fresh
    )
