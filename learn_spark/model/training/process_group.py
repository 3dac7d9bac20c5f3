"""The processes of one training: who this is, and what all of them know together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class ProcessGroup:
    """Process ``rank`` of ``size``. With one process every method gives back what it was given."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes, validates and speaks."""
        return self.rank == 0

    def gather(self, rows: Tensor) -> Tensor:
        """``rows`` [n, ...] of all processes, in the order of their ranks; n may differ. Gradients flow back to all."""
        if self.size == 1:
            return rows
        counts = self._counts(len(rows), rows.device)
        gathered: Tensor = _Gather.apply(rows, counts, self.rank) if rows.is_floating_point() else _gather(rows, counts)
        return gathered

    def total(self, value: Tensor) -> Tensor:
        """The sum of ``value`` over all processes, without gradients."""
        if self.size > 1:
            value = value.detach().clone()
            dist.all_reduce(value)
        return value

    def share(self, value: Any) -> Any:
        """What the first process has, on every process."""
        if self.size == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0)
        return held[0]

    def sum_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Every parameter's gradient becomes the sum over all processes; one that has none counts as zero."""
        if self.size == 1:
            return
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([part.reshape(-1) for part in parts])
        dist.all_reduce(flat)
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter).clone()

    def _counts(self, own: int, device: torch.device) -> list[int]:
        counts = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor([own], device=device))
        return [int(count) for count in counts]


def _gather(rows: Tensor, counts: list[int]) -> Tensor:
    longest = max(counts)
    padded = rows.new_zeros((longest, *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


class _Gather(torch.autograd.Function):
    """all_gather whose backward sums, for each process's rows, the gradients that all processes have for them."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int], rank: int) -> Tensor:
        ctx.counts, ctx.rank = counts, rank
        return _gather(rows, counts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        whole = gradient.contiguous().clone()
        dist.all_reduce(whole)
        start = sum(ctx.counts[: ctx.rank])
        return whole[start : start + ctx.counts[ctx.rank]], None, None
