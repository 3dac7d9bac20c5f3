"""Buckets of the time between consecutive events."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GAPS = 24
FIRST, SECOND = 0, 1_000_000


def gap_buckets(times: Tensor) -> Tensor:
    """Buckets [B, L] int64, below GAPS, of the time since the event before, from ``times`` [B, L] in microseconds.

    A row's first event has 0; a gap below a second has 1; longer gaps have 2 + floor(log2(seconds) * 22 / 28), so that
    the last bucket takes all gaps from 3.5 years on. Values at padding are arbitrary. A constant added to all times
    changes nothing.
    """
    seconds = F.pad(times[:, 1:] - times[:, :-1], (1, 0)).clamp(min=0) // SECOND
    scaled = 2 + (seconds.clamp(min=1).double().log2() * ((GAPS - 2) / 28)).long()
    buckets = torch.where(seconds < 1, 1, scaled.clamp(max=GAPS - 1))
    buckets[:, :1] = FIRST
    return buckets
