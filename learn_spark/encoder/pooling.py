"""From the hidden states of a text's tokens to its one vector."""

from __future__ import annotations

from collections.abc import Callable

import torch


def mean_pool(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of the hidden states [B, L, H] over real tokens (mask [B, L]), in fp32 (LEARN, content embedding)."""
    weights = mask.unsqueeze(-1).float()  # [B, L, 1]
    return (hidden.float() * weights).sum(1) / weights.sum(1).clamp_min(1.0)


def last_token_pool(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The hidden state of the last real token: for causal models the only one that has read all of the text."""
    last = mask.long().sum(1).clamp_min(1) - 1
    return hidden[torch.arange(len(hidden), device=hidden.device), last].float()


def cls_pool(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The hidden state of the first token: BERT's [CLS]."""
    return hidden[:, 0].float()


# Hidden states [B, L, H] and a mask [B, L] whose real tokens stand left -> [B, H] in fp32.
POOLINGS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mean": mean_pool,
    "last": last_token_pool,
    "cls": cls_pool,
}
