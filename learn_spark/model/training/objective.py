"""The loss of a batch as the settings define it: the predicted items, and the negatives they are compared with."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from learn_spark.core.settings.training import ObjectiveSettings
from learn_spark.model.objectives.dense_all_action import NegativePool, dense_all_action_loss
from learn_spark.model.objectives.softmax import full_softmax_loss, sampled_softmax_loss
from learn_spark.model.towers.learn_plus_members import LearnPlusMembers
from learn_spark.model.towers.tower import Tower
from learn_spark.model.training.batches import AllActionBatch, NextItemBatch
from learn_spark.model.training.process_group import ProcessGroup

Batch = NextItemBatch | AllActionBatch
SAMPLED = 1_024  # negatives of either kind instead of a full softmax
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 2.0


def objective_for(settings: ObjectiveSettings, catalogue: int) -> ObjectiveSettings:
    """``settings`` for a catalogue of so many items: above ``full_softmax_items``, a full softmax becomes mixed
    negatives with log q, each from SAMPLED in-batch and SAMPLED uniform ones (n_negatives and in_batch_negatives where
    they are more). Mixed sampling is that of Yang et al. (WWW 2020).
    """
    if settings.negatives != "full" or catalogue <= settings.full_softmax_items:
        return settings
    sizes = {
        "n_negatives": max(SAMPLED, settings.n_negatives),
        "in_batch_negatives": max(SAMPLED, settings.in_batch_negatives or 0),
    }
    return settings.model_copy(update={"negatives": "mixed", "log_q": True, **sizes})


class ObjectiveLoss(nn.Module):
    """The sum of a batch's loss terms, and their number.

    ``log_q`` [n_items + 1] is the log of each item's share of the training events. It is subtracted from the scores of
    in-batch negatives where ``objective.log_q`` is on, and added ``objective.popularity_correction`` times to the
    scores of full and mixed softmax (None: both are off). Where the temperature is learned, it is a parameter clamped
    to MIN_TEMPERATURE and MAX_TEMPERATURE. ``catalogue`` [K], increasing item_index values, is what the full softmax is
    over and negatives are drawn from (None: all items). An item without a training event is in neither: training could
    only push it away.
    """

    log_q: Tensor | None
    catalogue: Tensor | None

    def __init__(
        self, settings: ObjectiveSettings, *, log_q: Tensor | None, group: ProcessGroup, catalogue: Tensor | None = None
    ) -> None:
        super().__init__()
        self.settings, self.group = settings, group
        self.register_buffer("log_q", log_q, persistent=False)
        self.register_buffer("catalogue", catalogue, persistent=False)
        start = torch.tensor(math.log(settings.temperature))
        self.log_temperature = nn.Parameter(start) if settings.learn_temperature else None

    @property
    def temperature(self) -> float | Tensor:
        """The divisor of scores."""
        if self.log_temperature is None:
            return self.settings.temperature
        return self.log_temperature.exp().clamp(MIN_TEMPERATURE, MAX_TEMPERATURE)

    def forward(self, tower: Tower, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum over this process's pairs, number of pairs); negatives come from all processes.

        The members of an ensemble have a loss each: theirs are summed, and the pairs counted once.
        """
        if isinstance(tower, LearnPlusMembers):
            losses = [self(member, batch) for member in tower.towers()]
            return torch.stack([total for total, _ in losses]).sum(), losses[0][1]
        if isinstance(batch, AllActionBatch):
            return self._all_action(tower, batch)
        if self.settings.prefixes:
            # Each row has one position that predicts, its last event.
            lengths = batch.valid.int().argmax(dim=1) + 1
            user = tower.user_last(batch.items, lengths, batch.times)  # [P, D]
        else:
            user = tower.user(batch.items, batch.times)[batch.valid]  # [P, D]
        if self.settings.negatives == "full":
            return self._full_softmax(tower, user, batch.following, batch.weight)
        return self._pairs(tower, user, tower.items(batch.following), batch.following, batch.negatives, batch.weight)

    def _all_action(self, tower: Tower, batch: AllActionBatch) -> tuple[Tensor, Tensor]:
        rows = torch.arange(batch.users, device=batch.items.device).unsqueeze(1)
        user = tower.user(batch.items, batch.times)[rows, batch.user_at]  # [B, Nh, D]
        item = tower.targets(batch.targets)[rows, batch.target_at]  # [B, Nt, D]
        ids = batch.targets.gather(1, batch.target_at)  # [B, Nt]
        pairs = batch.user_mask[:, :, None] & batch.target_mask[:, None, :]  # [B, Nh, Nt]
        if self.settings.negatives != "in_batch":
            b, j, k = pairs.nonzero(as_tuple=True)
            if self.settings.negatives == "full":
                return self._full_softmax(tower, user[b, j], ids[b, k], None)
            return self._pairs(tower, user[b, j], item[b, k], ids[b, k], batch.negatives, None)
        log_q = self._log_q(ids)
        gather = self.group.gather
        pool = NegativePool(
            gather(item), gather(batch.target_mask), gather(ids), None if log_q is None else gather(log_q)
        )
        total = dense_all_action_loss(
            user,
            batch.user_mask,
            item,
            batch.target_mask,
            ids,
            temperature=self.temperature,
            log_q=log_q,
            pool=pool,
            reduction="sum",
        )
        return total, pairs.sum()

    def _pairs(
        self, tower: Tower, user: Tensor, positive: Tensor, ids: Tensor, drawn: Tensor | None, weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(sum, number) of the losses of ``user`` [P, D] with ``positive`` [P, D] against the settings' negatives."""
        count = _count(ids, weight)
        vectors, negative_ids, negative_log_q = [], [], []
        if self.settings.negatives in ("in_batch", "mixed"):
            others, other_ids = self.group.gather(positive), self.group.gather(ids)
            if (most := self.settings.in_batch_negatives) is not None and most < len(other_ids):
                drawn_rows = torch.randperm(len(other_ids))[:most].to(other_ids.device)
                others, other_ids = others[drawn_rows], other_ids[drawn_rows]
            vectors.append(others)
            negative_ids.append(other_ids)
            negative_log_q.append(self._log_q(other_ids))
        if drawn is not None:
            vectors.append(tower.items(drawn))
            negative_ids.append(drawn)
            size = tower.n_items if self.catalogue is None else len(self.catalogue)
            negative_log_q.append(torch.full(drawn.shape, -math.log(size), device=ids.device))
        # Uniform negatives need no correction: all have the same probability.
        corrected = self.log_q is not None and self.settings.negatives != "uniform"
        every_id = torch.cat(negative_ids)
        positive_log_q = self._log_q(ids) if corrected else None
        every_log_q = torch.cat([c for c in negative_log_q if c is not None]) if corrected else None
        if (factor := self.settings.popularity_correction) and positive_log_q is not None and every_log_q is not None:
            assert self.log_q is not None
            # What is subtracted from a score is log q minus the popularity that is added to it.
            positive_log_q = (1.0 - factor) * positive_log_q
            every_log_q = every_log_q - factor * self.log_q[every_id]
        mean = sampled_softmax_loss(
            user,
            positive,
            torch.cat(vectors),
            ids,
            every_id,
            log_q_positive=positive_log_q,
            log_q_negative=every_log_q,
            temperature=self.temperature,
            weight=weight,
        )
        return mean * count, count

    def _full_softmax(self, tower: Tower, user: Tensor, ids: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """(sum, number) of the losses of ``user`` [P, D] with the items ``ids`` [P] against the whole catalogue."""
        if self.catalogue is None:
            every, positions = torch.arange(1, tower.n_items + 1, device=ids.device), ids - 1
        else:
            every, positions = self.catalogue, torch.searchsorted(self.catalogue, ids)
        bias = None if self.log_q is None else self.settings.popularity_correction * self.log_q[every]
        mean = full_softmax_loss(
            user, tower.items(every), positions, temperature=self.temperature, weight=weight, bias=bias
        )
        count = _count(ids, weight)
        return mean * count, count

    def _log_q(self, ids: Tensor) -> Tensor | None:
        return None if self.log_q is None else self.log_q[ids]


def _count(ids: Tensor, weight: Tensor | None) -> Tensor:
    """The number of pairs, a scalar; the sum of ``weight`` where pairs have one."""
    return torch.tensor(float(len(ids)), device=ids.device) if weight is None else weight.sum()
