"""The dense all-action loss: every sampled user position against every sampled target of the same user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Others:
    """Targets of more users than the batch's, those of all processes say: vectors [B', Nt, D], mask and ids [B', Nt],
    ``log_q`` [B', Nt] where the batch has it. The batch's own are among them.
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
    others: Others | None = None,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """The mean over users i, positions j and targets k of -log(e^s_ijk / (e^s_ijk + sum of e^s over negatives)).

    Shapes: ``user`` [B, Nh, D] and ``item`` [B, Nt, D] L2-normalised, ``user_mask`` [B, Nh] and ``item_mask``
    [B, Nt] True where real, ``item_ids`` [B, Nt]; s = cosine / temperature. Returns a scalar.

    The negatives of user i are the targets of all other users, less the items that are targets of user i too. Where a
    user has none (a batch of one, say) its terms are 0, and they count in the mean. ``others`` are the targets that
    negatives are taken from, by default the batch's own. ``log_q``, the log of each target's chance to be in a batch,
    is subtracted from its score.

    Source: LEARN section 3, after PinnerFormer. Raises ValueError for shapes that do not fit and a temperature <= 0.
    """
    batch, positions, width = user.shape
    targets = item.shape[1]
    shapes = {
        "item": (item.shape, (batch, targets, width)),
        "user_mask": (user_mask.shape, (batch, positions)),
        "item_mask": (item_mask.shape, (batch, targets)),
        "item_ids": (item_ids.shape, (batch, targets)),
    }
    if log_q is not None:
        shapes["log_q"] = (log_q.shape, (batch, targets))
    for name, (found, expected) in shapes.items():
        if tuple(found) != expected:
            raise ValueError(
                f"{name} has the shape {tuple(found)}, expected {expected} beside user {tuple(user.shape)}"
            )
    heat = float(temperature.detach() if isinstance(temperature, Tensor) else temperature)
    if not heat > 0.0:
        raise ValueError(f"temperature {heat} must be above 0")
    exact = torch.promote_types(user.dtype, torch.float32)
    positive = (user @ item.transpose(1, 2)).to(exact) / temperature  # [B, Nh, Nt]
    pool = others or Others(item, item_mask, item_ids, log_q)
    scores = (user.reshape(-1, width) @ pool.item.reshape(-1, width).T).to(exact) / temperature  # [B * Nh, B' * Nt]
    scores = scores.view(batch, positions, pool.ids.numel())
    if log_q is not None and pool.log_q is not None:
        positive = positive - log_q[:, None, :]
        scores = scores - pool.log_q.reshape(1, 1, -1)

    negative = _negatives(item_mask, item_ids, pool)  # [B, B' * Nt]
    # The lowest finite number, not -inf: where a row has no negatives, -inf would make the gradient NaN.
    scores = scores.masked_fill(~negative[:, None, :], torch.finfo(exact).min)
    against = torch.logsumexp(scores, dim=2, keepdim=True)  # [B, Nh, 1]

    valid = user_mask[:, :, None] & item_mask[:, None, :]  # [B, Nh, Nt]
    total = F.softplus(against - positive).masked_fill(~valid, 0.0).sum()
    return total if reduction == "sum" else total / valid.sum().clamp(min=1)


def _negatives(item_mask: Tensor, item_ids: Tensor, pool: Others) -> Tensor:
    """Which of the pool's targets are negatives of which user: [B, B' * Nt]."""
    unique, index = torch.cat([item_ids.reshape(-1), pool.ids.reshape(-1)]).unique(return_inverse=True)
    own, theirs = index[: item_ids.numel()].view(item_ids.shape), index[item_ids.numel() :]
    # One column beyond the real ids takes the targets that are masked out.
    owned = torch.zeros(len(item_mask), len(unique) + 1, dtype=torch.bool, device=item_ids.device)
    owned.scatter_(1, torch.where(item_mask, own, len(unique)), True)
    # This takes out the user's own row as well: all that is valid there is owned.
    return pool.mask.reshape(1, -1) & ~owned[:, theirs]
