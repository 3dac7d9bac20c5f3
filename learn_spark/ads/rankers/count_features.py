"""Running counts as inputs of a ranker: their logarithms, and smoothed rates of conversion."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

COUNT_DIMS = 8
COUNTS_OF_ONE = 4  # of the item, then of the user
PRIOR_CONVERSIONS = 2.0  # an item without exposures has the rate of all, as if it had so many conversions at that rate
FURTHEST = 4.0  # standard deviations: counts go on growing after training


def count_features(counts: Tensor, rate: float | Tensor) -> Tensor:
    """[n, 8] of ``counts`` [n, 6] (COUNTS), of item and user each: log(1 + shown), log(1 + converted), the smoothed log
    odds of conversion minus those of ``rate``, log(1 + events).

    An item, or user, of which nothing is known has 0 everywhere.
    """
    parts = []
    for first, events in ((0, 4), (2, 5)):
        shown, converted = counts[:, first], counts[:, first + 1]
        won, lost = converted + PRIOR_CONVERSIONS, shown - converted + PRIOR_CONVERSIONS * (1 - rate) / rate
        odds = torch.log(won / lost) - torch.log(torch.as_tensor(rate / (1 - rate), dtype=counts.dtype))
        parts += [torch.log1p(shown), torch.log1p(converted), odds, torch.log1p(counts[:, events])]
    return torch.stack(parts, dim=1)


class CountScaler(nn.Module):
    """``count_features``, divided by their root mean square over training exposures, so that 0 stays "not known"."""

    rate: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rate", torch.tensor(0.5))
        self.register_buffer("scale", torch.ones(COUNT_DIMS))

    def fit(self, rate: float, blocks: Callable[[], Iterator[Tensor]]) -> None:
        """Set ``rate`` and the scale; ``blocks`` are the counts [n, 6] of all training exposures, a block at a time."""
        self.rate.fill_(rate)
        count, total = 0, torch.zeros(COUNT_DIMS, dtype=torch.float64)
        for block in blocks():
            total += (count_features(block, self.rate).double() ** 2).sum(dim=0)
            count += len(block)
        scale = (total / max(1, count)).sqrt()
        self.scale.copy_(torch.where(scale > 0, scale, torch.ones_like(scale)))

    def forward(self, counts: Tensor) -> Tensor:
        """[n, 8], at most FURTHEST away from 0."""
        return (count_features(counts, self.rate) / self.scale).clamp(-FURTHEST, FURTHEST)
