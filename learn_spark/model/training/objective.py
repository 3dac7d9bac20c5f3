"""The loss of a batch, as the settings have it: what is predicted, against which negatives."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from learn_spark.core.settings.training import ObjectiveSettings
from learn_spark.model.objectives.dense_all_action import Others, dense_all_action_loss
from learn_spark.model.objectives.softmax import full_softmax_loss, sampled_softmax_loss
from learn_spark.model.towers.tower import Tower
from learn_spark.model.training.batches import AllActionBatch, NextItemBatch
from learn_spark.model.training.process_group import ProcessGroup

Batch = NextItemBatch | AllActionBatch
COLDEST, HOTTEST = 0.01, 2.0


class ObjectiveLoss(nn.Module):
    """The sum of a batch's loss terms, and how many they are.

    ``log_q`` [n_items + 1] holds the log of each item's share of the training events, which is subtracted from the
    scores of in-batch negatives where ``objective.log_q`` is on, and added to those of a full softmax,
    ``objective.popularity_correction`` times (None: both are off). The temperature is a parameter
    where it is learned, and kept within COLDEST and HOTTEST. ``catalogue`` [K] rising item_index: what the full softmax
    is over, and ``negatives`` are drawn from (None: all items). An item without a training event belongs to neither:
    it could only be pushed away.
    """

    log_q: Tensor | None
    catalogue: Tensor | None

    def __init__(
        self, settings: ObjectiveSettings, *, log_q: Tensor | None, ranks: ProcessGroup, catalogue: Tensor | None = None
    ) -> None:
        super().__init__()
        self.settings, self.ranks = settings, ranks
        self.register_buffer("log_q", log_q, persistent=False)
        self.register_buffer("catalogue", catalogue, persistent=False)
        start = torch.tensor(math.log(settings.temperature))
        self.log_temperature = nn.Parameter(start) if settings.learn_temperature else None

    @property
    def temperature(self) -> float | Tensor:
        """What scores are divided by."""
        if self.log_temperature is None:
            return self.settings.temperature
        return self.log_temperature.exp().clamp(COLDEST, HOTTEST)

    def forward(self, tower: Tower, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum over this process's pairs, their number); with several processes negatives come from all of them."""
        if isinstance(batch, AllActionBatch):
            return self._all_action(tower, batch)
        user = tower.user(batch.items, batch.times)[batch.valid]  # [P, D]
        return self._pairs(tower, user, tower.items(batch.following), batch.following, batch.negatives, batch.weight)

    def _all_action(self, tower: Tower, batch: AllActionBatch) -> tuple[Tensor, Tensor]:
        rows = torch.arange(batch.users, device=batch.items.device).unsqueeze(1)
        user = tower.user(batch.items, batch.times)[rows, batch.user_at]  # [B, Nh, D]
        item = tower.targets(batch.targets)[rows, batch.target_at]  # [B, Nt, D]
        ids = batch.targets.gather(1, batch.target_at)  # [B, Nt]
        pairs = batch.user_mask[:, :, None] & batch.target_mask[:, None, :]  # [B, Nh, Nt]
        if self.settings.negatives != "in_batch":
            b, j, k = pairs.nonzero(as_tuple=True)
            return self._pairs(tower, user[b, j], item[b, k], ids[b, k], batch.negatives, None)
        log_q = self._log_q(ids)
        gather = self.ranks.gather
        others = Others(gather(item), gather(batch.target_mask), gather(ids), None if log_q is None else gather(log_q))
        total = dense_all_action_loss(
            user,
            batch.user_mask,
            item,
            batch.target_mask,
            ids,
            temperature=self.temperature,
            log_q=log_q,
            others=others,
            reduction="sum",
        )
        return total, pairs.sum()

    def _pairs(
        self, tower: Tower, user: Tensor, positive: Tensor, ids: Tensor, drawn: Tensor | None, weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Each of ``user`` [P, D] against its ``positive`` [P, D] and the negatives of the settings."""
        count = torch.tensor(float(len(ids)), device=ids.device) if weight is None else weight.sum()
        shared: dict[str, Any] = {"temperature": self.temperature, "weight": weight}
        if self.settings.negatives == "full":
            if self.catalogue is None:
                every, place = torch.arange(1, tower.n_items + 1, device=ids.device), ids - 1
            else:
                every, place = self.catalogue, torch.searchsorted(self.catalogue, ids)
            bias = None if self.log_q is None else self.settings.popularity_correction * self.log_q[every]
            return full_softmax_loss(user, tower.items(every), place, bias=bias, **shared) * count, count
        vectors, named, chances = [], [], []
        if self.settings.negatives in ("in_batch", "mixed"):
            vectors.append(self.ranks.gather(positive))
            named.append(self.ranks.gather(ids))
            chances.append(self._log_q(named[0]))
        if drawn is not None:
            vectors.append(tower.items(drawn))
            named.append(drawn)
            size = tower.n_items if self.catalogue is None else len(self.catalogue)
            chances.append(torch.full(drawn.shape, -math.log(size), device=ids.device))
        # Uniform negatives alone need no correction: all have the same chance.
        corrected = self.log_q is not None and self.settings.negatives != "uniform"
        mean = sampled_softmax_loss(
            user,
            positive,
            torch.cat(vectors),
            ids,
            torch.cat(named),
            log_q_positive=self._log_q(ids) if corrected else None,
            log_q_negative=torch.cat([c for c in chances if c is not None]) if corrected else None,
            **shared,
        )
        return mean * count, count

    def _log_q(self, ids: Tensor) -> Tensor | None:
        return None if self.log_q is None else self.log_q[ids]
