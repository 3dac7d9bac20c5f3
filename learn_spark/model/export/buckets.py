"""Buckets of time whose borders are whole seconds, so that no runtime's logarithm decides on which side a time is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

LONGEST = 1 << 42  # seconds; microseconds since 1970 in 64 bits reach no further


def first_seconds(bucket: Callable[[Tensor], Tensor], buckets: int) -> Tensor:
    """The smallest number of whole seconds [buckets + 1] int64 of each bucket and of one that no time reaches.

    ``bucket`` maps seconds [n] int64 to buckets [n], growing. A bucket without a time has the first second of the next
    one that has one.
    """
    wanted = torch.arange(buckets + 1)
    low, high = torch.zeros_like(wanted), torch.full_like(wanted, LONGEST)
    while bool((low < high).any()):
        middle = (low + high) // 2
        reaches = bucket(middle) >= wanted
        low, high = torch.where(reaches, low, middle + 1).minimum(high), torch.where(reaches, middle, high)
    return high


class ExactBuckets(nn.Module):
    """The buckets of ``bucket``, from an estimate that may be one off and the first second of each bucket."""

    firsts: Tensor

    def __init__(self, bucket: Callable[[Tensor], Tensor], buckets: int) -> None:
        super().__init__()
        self.last = buckets - 1
        self.register_buffer("firsts", first_seconds(bucket, buckets))

    def forward(self, seconds: Tensor, estimate: Tensor) -> Tensor:
        """Buckets int64 of ``seconds`` int64; both and ``estimate`` have one shape."""
        estimate = estimate.clamp(min=0, max=self.last)
        higher = (seconds >= self.firsts[estimate + 1]).long()
        lower = (seconds < self.firsts[estimate]).long()
        return (estimate + higher - lower).clamp(min=0, max=self.last)
