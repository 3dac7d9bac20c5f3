"""The dense all-action loss: every sampled user position against every sampled target of the same user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from learn_spark.model.objectives.checks import check_shapes, check_temperature


@dataclass(frozen=True)
class NegativePool:
    """The targets that negatives are taken from, such as those of all processes; the batch's targets are among them.

    ``item`` [B', Nt, D] vectors, ``mask`` and ``ids`` [B', Nt], ``log_q`` [B', Nt] where the batch has it.
    """

    item: Tensor
    mask: Tensor
    ids: Tensor
    log_q: Tensor | None = None


def dense_all_action_loss(
    user: Tensor,
    user_mask: Tensor,
    item: Tensor,
    item_mask: Tensor,
    item_ids: Tensor,
    *,
    temperature: float | Tensor,
    log_q: Tensor | None = None,
    pool: NegativePool | None = None,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """The mean over users i, positions j and targets k of -log(e^s_ijk / (e^s_ijk + sum of e^s over negatives)), a
    scalar.

    ``user`` [B, Nh, D] and ``item`` [B, Nt, D] are L2-normalised; ``user_mask`` [B, Nh] and ``item_mask`` [B, Nt] are
    True where real; ``item_ids`` [B, Nt]. A score s is cosine / temperature. ``reduction`` "sum" returns the sum
    instead.

    The negatives of user i are the targets of all other users, except items that are targets of user i too. The terms
    of a user without negatives (in a batch of one, for example) are 0, and they count in the mean. ``pool`` holds the
    targets that negatives are taken from, by default the batch's. ``log_q``, the log of each target's probability of
    being in a batch, is subtracted from its score.

    Source: LEARN section 3, after PinnerFormer. Raises ValueError for shapes that do not fit and a temperature <= 0.
    """
    batch, positions, width = user.shape
    targets = item.shape[1]
    check_shapes(
        user,
        {
            "item": (item, (batch, targets, width)),
            "user_mask": (user_mask, (batch, positions)),
            "item_mask": (item_mask, (batch, targets)),
            "item_ids": (item_ids, (batch, targets)),
            "log_q": (log_q, (batch, targets)),
        },
    )
    check_temperature(temperature)
    dtype = torch.promote_types(user.dtype, torch.float32)
    positive = (user @ item.transpose(1, 2)).to(dtype) / temperature  # [B, Nh, Nt]
    pool = pool or NegativePool(item, item_mask, item_ids, log_q)
    scores = (user.reshape(-1, width) @ pool.item.reshape(-1, width).T).to(dtype) / temperature  # [B * Nh, B' * Nt]
    scores = scores.view(batch, positions, pool.ids.numel())
    if log_q is not None and pool.log_q is not None:
        positive = positive - log_q[:, None, :]
        scores = scores - pool.log_q.reshape(1, 1, -1)

    is_negative = _negatives(item_mask, item_ids, pool)  # [B, B' * Nt]
    # The lowest finite number, not -inf: where a row has no negatives, -inf would make the gradient NaN.
    scores = scores.masked_fill(~is_negative[:, None, :], torch.finfo(dtype).min)
    log_negatives = torch.logsumexp(scores, dim=2, keepdim=True)  # [B, Nh, 1]

    valid = user_mask[:, :, None] & item_mask[:, None, :]  # [B, Nh, Nt]
    total = F.softplus(log_negatives - positive).masked_fill(~valid, 0.0).sum()
    return total if reduction == "sum" else total / valid.sum().clamp(min=1)


def _negatives(item_mask: Tensor, item_ids: Tensor, pool: NegativePool) -> Tensor:
    """The pool's targets that are negatives of each user: [B, B' * Nt] bool."""
    unique, index = torch.cat([item_ids.reshape(-1), pool.ids.reshape(-1)]).unique(return_inverse=True)
    target_index, pool_index = index[: item_ids.numel()].view(item_ids.shape), index[item_ids.numel() :]
    # One column beyond the real ids takes the masked targets.
    is_target = torch.zeros(len(item_mask), len(unique) + 1, dtype=torch.bool, device=item_ids.device)
    is_target.scatter_(1, torch.where(item_mask, target_index, len(unique)), True)
    # This excludes the user's own row too: its valid items are all targets of the user.
    return pool.mask.reshape(1, -1) & ~is_target[:, pool_index]
