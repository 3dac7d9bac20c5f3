"""The time between events in buckets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GAPS = 24
FIRST, SECOND = 0, 1_000_000


def gap_buckets(times: Tensor) -> Tensor:
    """Buckets [B, L] int64, below GAPS, of the time since the event before, of ``times`` [B, L] in microseconds.

    0 for a row's first event; 1 for less than a second; else 2 + floor(log2(seconds) * 22 / 28), so that the last holds
    all from 3.5 years on. What stands at padding is arbitrary. A constant added to all times changes nothing.
    """
    apart = F.pad(times[:, 1:] - times[:, :-1], (1, 0)).clamp(min=0) // SECOND
    steps = 2 + (apart.clamp(min=1).double().log2() * ((GAPS - 2) / 28)).long()
    buckets = torch.where(apart < 1, 1, steps.clamp(max=GAPS - 1))
    buckets[:, :1] = FIRST
    return buckets
