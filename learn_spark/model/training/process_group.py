"""The processes of one training, and what they compute together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class ProcessGroup:
    """Process ``rank`` of ``size``. With one process, every method returns its argument."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def gather(self, rows: Tensor) -> Tensor:
        """``rows`` [n, ...] of all processes in the order of their ranks; n may differ. Gradients flow back to all
        processes.
        """
        if self.size == 1:
            return rows
        counts = self._counts(len(rows), rows.device)
        gathered: Tensor = _Gather.apply(rows, counts, self.rank) if rows.is_floating_point() else _gather(rows, counts)
        return gathered

    def sum(self, value: Tensor) -> Tensor:
        """The sum of ``value`` over all processes, without gradients."""
        if self.size > 1:
            value = value.detach().clone()
            dist.all_reduce(value)
        return value

    def broadcast(self, value: Any) -> Any:
        """The first process's ``value``, on every process."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def sum_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Replace every parameter's gradient by the sum over all processes; a missing gradient counts as zero.

        A parameter has sparse gradients in all processes, or in none. Sparse ones are coalesced afterwards.
        """
        for parameter in parameters:
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = self._sum_rows(parameter.grad.coalesce())
        parameters = [p for p in parameters if p.grad is None or not p.grad.is_sparse]
        if self.size == 1:
            return
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([part.reshape(-1) for part in parts])
        dist.all_reduce(flat)
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter).clone()

    def _sum_rows(self, gradient: Tensor) -> Tensor:
        """The sum over all processes of a sparse gradient [n, D] with values [rows, D]."""
        if self.size == 1:
            return gradient
        rows, values = self.gather(gradient.indices()[0]), self.gather(gradient.values())
        return torch.sparse_coo_tensor(rows[None], values, gradient.shape).coalesce()

    def _counts(self, rows: int, device: torch.device) -> list[int]:
        counts = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor([rows], device=device))
        return [int(count) for count in counts]


def _gather(rows: Tensor, counts: list[int]) -> Tensor:
    longest = max(counts)
    padded = rows.new_zeros((longest, *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


class _Gather(torch.autograd.Function):
    """all_gather whose backward sums the gradients that all processes have for each process's rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int], rank: int) -> Tensor:
        ctx.counts, ctx.rank = counts, rank
        return _gather(rows, counts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        start = sum(ctx.counts[: ctx.rank])
        return total[start : start + ctx.counts[ctx.rank]], None, None
