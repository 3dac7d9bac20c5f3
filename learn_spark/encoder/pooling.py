"""Pooling: from the hidden states of a text's tokens to its vector."""

from __future__ import annotations

from collections.abc import Callable

import torch


def mean_pool(hidden: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """Mean of the hidden states over a text's tokens, in fp32 (LEARN, content embedding)."""
    lengths = starts.diff()
    text = torch.repeat_interleave(torch.arange(len(lengths), device=hidden.device), lengths, output_size=len(hidden))
    sums = torch.zeros(len(lengths), hidden.shape[1], device=hidden.device).index_add_(0, text, hidden.float())
    return sums / lengths[:, None]


def last_token_pool(hidden: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """The hidden state of the last token: in causal models the only one that attends to the whole text."""
    return hidden[starts[1:] - 1].float()


def cls_pool(hidden: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """The hidden state of the first token: BERT's [CLS]."""
    return hidden[starts[:-1]].float()


# From hidden states [tokens, H] of texts laid end to end and their starts [B + 1], the end included, to [B, H] in fp32.
POOLINGS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mean": mean_pool,
    "last": last_token_pool,
    "cls": cls_pool,
}
