"""From rows of user_histories to training batches: inputs, positions to predict, and drawn negatives."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from learn_spark.core.settings.training import ObjectiveSettings
from learn_spark.data.splits.training_view import Until
from learn_spark.model.feed.prefixes import Prefixes
from learn_spark.model.feed.shuffle import Rows
from learn_spark.model.objectives.negatives import uniform_negatives
from learn_spark.model.objectives.sampling import RecencyWeights, sample_positions, split_sequences


@dataclass(frozen=True)
class _Tensors:
    """Tensors that every batch has.

    ``items`` [B, L] are histories by item_index, right-padded with 0; ``times`` [B, L] microseconds where the tower
    reads them; ``negatives`` draws from the catalogue: [M], or [P, M] with a row for each predicted pair.
    """

    items: Tensor
    times: Tensor | None
    negatives: Tensor | None

    @property
    def users(self) -> int:
        """Number of sequences in the batch."""
        return len(self.items)

    def to(self, device: torch.device) -> Self:
        """The batch on ``device``."""
        moved: dict[str, Any] = {}
        for field in fields(self):
            tensor = getattr(self, field.name)
            moved[field.name] = None if tensor is None else tensor.to(device)
        return replace(self, **moved)


@dataclass(frozen=True)
class NextItemBatch(_Tensors):
    """A batch for next-item prediction.

    ``valid`` [B, L] is True at positions that predict (with prefixes, the last event of a row alone), ``following`` [P]
    the items that come next there, in the order of ``valid``'s true entries, and ``weight`` [P] the weight of each, or
    None.
    """

    valid: Tensor
    following: Tensor
    weight: Tensor | None


@dataclass(frozen=True)
class AllActionBatch(_Tensors):
    """A batch for the all-action loss.

    ``targets`` [B, T] are the items from the split on; ``user_at`` [B, Nh] and ``target_at`` [B, Nt] the sampled
    positions of histories and targets, ``user_mask`` and ``target_mask`` their masks.
    """

    targets: Tensor
    user_at: Tensor
    user_mask: Tensor
    target_at: Tensor
    target_mask: Tensor


class BatchMaker:
    """Makes batches of rows.

    A batch is a function of its rows and of (seed, turn, rank, step), so that a resumed epoch continues with the
    batches it would have had. ``until`` is the column with the number of a row's training events. ``catalogue`` holds
    the item_index values that negatives are drawn from (None: 1..``n_items``).
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
        """The required columns of user_histories."""
        optional = {"event_time": self.times, "weight": self.weights}
        return ["item_index", "train_end", self.until, *(name for name, needed in optional.items() if needed)]

    @property
    def prefixes(self) -> Prefixes | None:
        """What turns rows of histories into the rows of ``make``; None: it makes batches of histories."""
        if not self.objective.prefixes:
            return None
        return Prefixes(until=self.until, history=self.objective.history)

    def make(self, rows: Rows, *, turn: int, step: int) -> NextItemBatch | AllActionBatch:
        """The batch of ``rows``; users with fewer than two usable events are left out."""
        generator = np.random.default_rng([self.seed, turn, self.rank, step, 1])
        return (self._next_item if self.objective.predicts == "next_item" else self._all_action)(rows, generator)

    def _next_item(self, rows: Rows, generator: np.random.Generator) -> NextItemBatch:
        lengths = rows[self.until].astype(np.int64)
        # A row without an event after its split is no training sample (the held-out users of protocol time_split).
        usable = np.flatnonzero((lengths > 1) & ((rows["train_end"] == 0) | (rows["train_end"] < lengths)))
        start, visible = self._crops(lengths[usable], generator)
        inputs = np.minimum(visible - 1, self.objective.history)
        # Of a history longer than the window, each turn takes another part.
        start += generator.integers(0, visible - inputs)  # [B]
        offsets = np.arange(int(inputs.max(initial=1)))
        inside = offsets < inputs[:, None]  # [B, L]
        valid = offsets == inputs[:, None] - 1 if self.objective.prefixes else inside
        columns = np.where(inside, start[:, None] + offsets, 0)

        def window(name: str, shift: int = 0) -> np.ndarray:
            return np.where(inside, rows[name][usable[:, None], columns + shift * inside], 0)

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
        """(first event, number of events) that training sees of each sequence [B]; at least two events."""
        if not self.objective.crop_share:
            return np.zeros_like(lengths), lengths
        cropped = generator.random(len(lengths)) < self.objective.crop_share
        visible = np.where(cropped, generator.integers(2, lengths + 1), lengths)
        return generator.integers(0, lengths - visible + 1), visible

    def _all_action(self, rows: Rows, generator: np.random.Generator) -> AllActionBatch:
        objective = self.objective
        sequences = split_sequences(
            rows["item_index"],
            rows[self.until],
            history=objective.history,
            targets=objective.targets,
            generator=generator,
            splits=rows["train_end"],
        )
        history_weights, target_weights = sequences.align(rows["weight"]) if self.weights else (None, None)
        draw: dict[str, Any] = {"generator": generator, "weights": self._recency or "uniform"}
        user_at, user_mask = sample_positions(
            sequences.history_length, objective.history_positions, event_weights=history_weights, **draw
        )
        target_at, target_mask = sample_positions(
            sequences.target_length, objective.target_positions, event_weights=target_weights, nearest="start", **draw
        )
        pairs = int((user_mask.sum(1) * target_mask.sum(1)).sum())
        # No longer than the batch's longest row: padding costs time.
        longest_history, longest_targets = (
            int(sequences.history_length.max(initial=1)),
            int(sequences.target_length.max(initial=1)),
        )
        return AllActionBatch(
            items=_long(sequences.history[:, :longest_history]),
            times=_long(sequences.align(rows["event_time"])[0][:, :longest_history]) if self.times else None,
            negatives=self._negatives(pairs, generator),
            targets=_long(sequences.targets[:, :longest_targets]),
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
