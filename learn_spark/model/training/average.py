"""A moving average of a tower's weights over the steps of its training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage(nn.Module):
    """The exponential moving average of ``tower``'s trained parameters (Polyak averaging).

    The averages are buffers, so that they are saved and resumed with the other modules of a training. The decay warms
    up as min(decay, (1 + t) / (10 + t)) at step t, so that the initial weights are forgotten quickly.
    """

    def __init__(self, tower: nn.Module, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self._trained = [p for p in tower.parameters() if p.requires_grad]
        for index, parameter in enumerate(self._trained):
            self.register_buffer(f"mean{index}", parameter.detach().clone())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the averages after optimizer step ``step``, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for mean, parameter in self._pairs():
            mean.lerp_(parameter, 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this context the tower has the averages as its weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for mean, parameter in self._pairs():
            previous = parameter.clone()
            parameter.copy_(mean)
            mean.copy_(previous)

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index, parameter in enumerate(self._trained):
            yield self.get_buffer(f"mean{index}"), parameter
