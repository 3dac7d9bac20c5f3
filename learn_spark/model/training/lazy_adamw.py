"""AdamW that, of a table with sparse gradients, changes only the rows of the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from learn_spark.core.settings.training import ObjectiveSettings, TrainingSettings

MOST_DENSE_IDS = 300_000  # items up to which training.id_gradients auto is dense


def has_sparse_ids(training: TrainingSettings, objective: ObjectiveSettings, n_items: int) -> bool:
    """Whether a table of ID vectors gets sparse gradients, by ``training.id_gradients``."""
    few_rows = objective.negatives != "full" and not training.average
    return training.id_gradients == "sparse" or (
        training.id_gradients == "auto" and n_items > MOST_DENSE_IDS and few_rows
    )


class LazyAdamW(torch.optim.AdamW):
    """``torch.optim.AdamW``; of a parameter [n, D] with a coalesced sparse gradient, only its rows are changed.

    For these rows a step is AdamW's (Loshchilov and Hutter 2019), with the bias correction of the number of steps in
    which the table had a gradient. Other rows keep their weights and both moments: neither momentum nor weight decay
    moves them (as in ``torch.optim.SparseAdam``, which has no weight decay). Where every row is in every step, the
    results are AdamW's. Memory: 12 bytes a number of the table, weights included, and 16 bytes one of a step's rows.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of all parameters. Raises ValueError for a closure with sparse gradients in place."""
        if closure is not None:
            raise ValueError("LazyAdamW takes no closure")
        sparse = [
            (group, parameter, parameter.grad)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and parameter.grad.is_sparse
        ]
        for _, parameter, _ in sparse:
            parameter.grad = None
        super().step()
        for group, parameter, gradient in sparse:
            parameter.grad = gradient
            self._step_rows(group, parameter, gradient)
        return None

    def _step_rows(self, group: dict[str, Any], parameter: nn.Parameter, gradient: Tensor) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        step, rate, decay, (first, second) = float(state["step"]), group["lr"], group["weight_decay"], group["betas"]
        rows, values = gradient.indices()[0], gradient.values()
        mean = state["exp_avg"][rows].lerp_(values, 1.0 - first)
        square = state["exp_avg_sq"][rows].mul_(second).addcmul_(values, values, value=1.0 - second)
        state["exp_avg"][rows], state["exp_avg_sq"][rows] = mean, square
        scale = square.sqrt_().div_((1.0 - second**step) ** 0.5).add_(group["eps"])
        weights = parameter[rows].mul_(1.0 - rate * decay)
        parameter[rows] = weights.addcdiv_(mean, scale, value=-rate / (1.0 - first**step))


def clip_gradients(parameters: Sequence[nn.Parameter], most: float) -> None:
    """Scale all gradients so that their norm together is at most ``most``, as ``nn.utils.clip_grad_norm_`` does, which
    takes no sparse ones. These must be coalesced.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not any(gradient.is_sparse for gradient in gradients):
        nn.utils.clip_grad_norm_(parameters, most)
        return
    values = [gradient.values() if gradient.is_sparse else gradient for gradient in gradients]
    factor = (most / (nn.utils.get_total_norm(values) + 1e-6)).clamp(max=1.0)
    for value in values:
        value.mul_(factor)
