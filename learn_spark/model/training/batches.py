"""From rows of user_histories to training batches: what goes in, what is to be predicted, which negatives."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from learn_spark.core.settings.training import ObjectiveSettings
from learn_spark.data.splits.training_view import Until
from learn_spark.model.feed.shuffle import Rows
from learn_spark.model.objectives.negatives import uniform_negatives
from learn_spark.model.objectives.sampling import RecencyWeights, cut_sequences, sample_positions


@dataclass(frozen=True)
class _Tensors:
    """Histories ``items`` [B, L] by item_index, right-padded with 0, ``times`` [B, L] in microseconds where the tower
    reads them, and ``negatives`` drawn from the catalogue: [M], or [P, M] one row for each pair that is predicted.
    """

    items: Tensor
    times: Tensor | None
    negatives: Tensor | None

    @property
    def users(self) -> int:
        """Sequences in the batch."""
        return len(self.items)

    def to(self, device: torch.device) -> Self:
        """The same on ``device``."""
        moved: dict[str, Any] = {}
        for field in fields(self):
            tensor = getattr(self, field.name)
            moved[field.name] = None if tensor is None else tensor.to(device)
        return replace(self, **moved)


@dataclass(frozen=True)
class NextItemBatch(_Tensors):
    """``valid`` [B, L] where a position predicts, ``following`` [P] the items that come next there, in the order of
    ``valid``'s true entries, and ``weight`` [P] of each, or None.
    """

    valid: Tensor
    following: Tensor
    weight: Tensor | None


@dataclass(frozen=True)
class AllActionBatch(_Tensors):
    """``targets`` [B, T] the items behind the cut; ``user_at`` [B, Nh] and ``target_at`` [B, Nt] the sampled positions
    of histories and targets, with their masks.
    """

    targets: Tensor
    user_at: Tensor
    user_mask: Tensor
    target_at: Tensor
    target_mask: Tensor


class BatchMaker:
    """Makes batches of rows. Each is a function of the rows and of (seed, turn, rank, step): an epoch that is taken up
    in its middle goes on with the batches it would have had. ``until`` is the column that says where a row's events to
    train on end; ``catalogue`` the item_index of what negatives are drawn from (None: 1..``n_items``).
    """

    def __init__(
        self,
        objective: ObjectiveSettings,
        *,
        n_items: int,
        catalogue: np.ndarray | None = None,
        seed: int,
        rank: int = 0,
        times: bool = False,
        weights: bool = False,
        until: Until = "train_length",
    ) -> None:
        self.objective, self.seed, self.rank = objective, seed, rank
        self.catalogue = np.arange(1, n_items + 1) if catalogue is None else catalogue
        self.times, self.weights, self.until = times, weights, until
        self._recency = RecencyWeights(**objective.recency.model_dump()) if objective.recency else None

    @property
    def columns(self) -> list[str]:
        """The columns of user_histories that are needed."""
        named = {"event_time": self.times, "weight": self.weights}
        return ["item_index", "train_end", self.until, *(name for name, wanted in named.items() if wanted)]

    def make(self, rows: Rows, *, turn: int, step: int) -> NextItemBatch | AllActionBatch:
        """The batch of ``rows``; users with fewer than two usable events are left out."""
        generator = np.random.default_rng([self.seed, turn, self.rank, step, 1])
        return (self._next_item if self.objective.predicts == "next_item" else self._all_action)(rows, generator)

    def _next_item(self, rows: Rows, generator: np.random.Generator) -> NextItemBatch:
        lengths = rows[self.until].astype(np.int64)
        # A row behind its cut is no training sample (protocol time_split's held-out users).
        usable = np.flatnonzero((lengths > 1) & ((rows["train_end"] == 0) | (rows["train_end"] < lengths)))
        start, stretch = self._crops(lengths[usable], generator)
        inputs = np.minimum(stretch - 1, self.objective.history)
        # A history longer than the window shows another part of itself each time.
        start += generator.integers(0, stretch - inputs)  # [B]
        column = np.arange(int(inputs.max(initial=0)))
        valid = column < inputs[:, None]  # [B, L]
        at = np.where(valid, start[:, None] + column, 0)

        def window(name: str, shift: int = 0) -> np.ndarray:
            return np.where(valid, rows[name][usable[:, None], at + shift * valid], 0)

        following = window("item_index", 1)[valid]
        return NextItemBatch(
            items=_long(window("item_index")),
            times=_long(window("event_time")) if self.times else None,
            negatives=self._negatives(len(following), generator),
            valid=torch.from_numpy(valid),
            following=_long(following),
            weight=torch.from_numpy(window("weight", 1)[valid].astype(np.float32)) if self.weights else None,
        )

    def _crops(self, lengths: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(first event, number of events) of what training may see of each sequence [B]: two events at least."""
        if not self.objective.crop_share:
            return np.zeros_like(lengths), lengths
        cropped = generator.random(len(lengths)) < self.objective.crop_share
        stretch = np.where(cropped, generator.integers(2, lengths + 1), lengths)
        return generator.integers(0, lengths - stretch + 1), stretch

    def _all_action(self, rows: Rows, generator: np.random.Generator) -> AllActionBatch:
        objective = self.objective
        split = cut_sequences(
            rows["item_index"],
            rows[self.until],
            history=objective.history,
            targets=objective.targets,
            generator=generator,
            splits=rows["train_end"],
        )
        history_weights, target_weights = split.align(rows["weight"]) if self.weights else (None, None)
        drawn: dict[str, Any] = {"generator": generator, "weights": self._recency or "uniform"}
        user_at, user_mask = sample_positions(
            split.history_length, objective.history_positions, event_weights=history_weights, **drawn
        )
        target_at, target_mask = sample_positions(
            split.target_length, objective.target_positions, event_weights=target_weights, nearest="start", **drawn
        )
        pairs = int((user_mask.sum(1) * target_mask.sum(1)).sum())
        # No longer than the batch's longest: padding is work for nothing.
        longest, furthest = int(split.history_length.max(initial=1)), int(split.target_length.max(initial=1))
        return AllActionBatch(
            items=_long(split.history[:, :longest]),
            times=_long(split.align(rows["event_time"])[0][:, :longest]) if self.times else None,
            negatives=self._negatives(pairs, generator),
            targets=_long(split.targets[:, :furthest]),
            user_at=torch.from_numpy(user_at),
            user_mask=torch.from_numpy(user_mask),
            target_at=torch.from_numpy(target_at),
            target_mask=torch.from_numpy(target_mask),
        )

    def _negatives(self, pairs: int, generator: np.random.Generator) -> Tensor | None:
        if self.objective.negatives not in ("uniform", "mixed"):
            return None
        size = (pairs, self.objective.n_negatives) if self.objective.per_position else self.objective.n_negatives
        drawn = uniform_negatives(size, n_items=len(self.catalogue), generator=generator)
        return _long(self.catalogue[drawn - 1])


def _long(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))
