"""Dropout for training on CPUs, where PyTorch's own draws one element after the other."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BITS = 16
RANDOM_PER_WORD = 64 // BITS


class Dropout(nn.Module):
    """Zeroes a share ``p`` of the elements in training and divides the others by the share that is kept.

    On a CPU each element costs 16 random bits, four elements one draw of the generator; torch.nn.Dropout takes a draw
    an element there, which is a third of a step of a small tower. The share is ``p`` to the nearest 1/65536. The mask
    is a function of the default generator's state. On other devices this is torch.nn.Dropout.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, values: Tensor) -> Tensor:
        """``values`` of any shape, with dropout in training mode."""
        return dropout(values, self.p, training=self.training)


def dropout(values: Tensor, p: float, *, training: bool) -> Tensor:
    """``values`` with dropout of share ``p`` where ``training``."""
    if not training or p == 0.0:
        return values
    if values.device.type != "cpu":
        return F.dropout(values, p)
    dropped = round(p * (1 << BITS))
    words = torch.empty(-(-values.numel() // RANDOM_PER_WORD), dtype=torch.int64)
    words.random_(torch.iinfo(torch.int64).min, None)
    bits = words.view(torch.int16)[: values.numel()].view(values.shape)
    kept = bits >= dropped + torch.iinfo(torch.int16).min
    return values * (kept * (1.0 / (1.0 - dropped / (1 << BITS)))).to(values.dtype)


def attend(
    query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None = None, causal: bool = False, p: float = 0.0
) -> Tensor:
    """Scaled dot-product attention [.., Q, D] with dropout of share ``p`` on the attention weights.

    ``query`` [.., Q, D], ``key`` and ``value`` [.., K, D]; ``mask`` [.., Q, K] is boolean (True: may attend) or added
    to the scores. With ``causal``, query i sees keys 0..i. Each query needs a key that it sees. Without dropout, and on
    other devices than CPUs, this is torch's scaled_dot_product_attention.
    """
    if p == 0.0 or query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=p, is_causal=causal)
    scores = (query * (1.0 / math.sqrt(query.shape[-1]))) @ key.transpose(-2, -1)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return dropout(scores.softmax(dim=-1), p, training=True).to(value.dtype) @ value
