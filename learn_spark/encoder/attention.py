"""Attention over packed texts: each text attends to itself only, and there is no padding."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

BY_LENGTH = "learn_spark_by_length"


def attend_by_length(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of texts laid end to end: transformers' interface with FlashAttention's arguments.

    ``query`` [1, heads, tokens, d], ``key`` and ``value`` [1, key heads, tokens, d]; text i is the tokens
    ``cu_seq_lens_q[i]`` to ``cu_seq_lens_q[i + 1]``. Neighbours of equal length, which sorted texts mostly have, go
    through PyTorch's scaled dot product attention together, without a mask. Returns [1, tokens, heads, d].

    Raises ValueError for what it does not support: a mask or bias, capped scores, attention sinks, a window that is
    shorter than ``max_length_q``.
    """
    unsupported = [n for n in ("softcap", "s_aux", "position_bias", "cache") if others.get(n) is not None]
    if attention_mask is not None or unsupported or (sliding_window is not None and sliding_window < max_length_q):
        raise ValueError(f"packed attention does not support {unsupported or 'a mask or a short window'}")
    causal = is_causal if is_causal is not None else bool(getattr(module, "is_causal", True))
    out = query.new_empty(query.shape[2], query.shape[1], value.shape[3])  # [tokens, heads, d]
    starts: list[int] = cu_seq_lens_q.tolist()
    first = 0
    while first < len(starts) - 1:
        length = starts[first + 1] - starts[first]
        last = first + 1
        while last < len(starts) - 1 and starts[last + 1] - starts[last] == length:
            last += 1
        tokens = slice(starts[first], starts[last])
        # [1, heads, n * length, d] -> [n, heads, length, d]
        queries, keys, values = (
            x[0, :, tokens].unflatten(1, (last - first, length)).transpose(0, 1) for x in (query, key, value)
        )
        attended = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            scale=scaling,
            is_causal=causal and length > 1,
            enable_gqa=queries.shape[1] != keys.shape[1],
        )
        out[tokens] = attended.transpose(1, 2).flatten(0, 1)
        first = last
    return out[None], None


AttentionInterface.register(BY_LENGTH, attend_by_length)
