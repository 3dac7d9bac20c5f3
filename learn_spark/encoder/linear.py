"""Linear layers for the CPU with weights in oneDNN's layout, which on many CPUs is faster than MKL."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PrepackedLinear(nn.Module):
    """A frozen ``linear`` layer on the CPU with its weights in oneDNN's layout; results differ in the last bits only.

    The layout is the one that torch.compile's freezing gives linear layers, by the same operators.
    """

    # The engine's usual batch; the layout is optimised for it and correct for any.
    ROWS = 2048

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), self.ROWS)
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, rows: Tensor) -> Tensor:
        """Map ``rows`` [..., in] to [..., out]."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._weight, self._bias, "none", [], "")
        return product


def can_prepack(dtype: torch.dtype) -> bool:
    """Whether oneDNN supports weights of ``dtype`` on this machine: bf16 requires a CPU with AVX512."""
    try:
        with torch.inference_mode():
            PrepackedLinear(nn.Linear(8, 8, dtype=dtype))(torch.zeros(2, 8, dtype=dtype))
    # AttributeError: a build without the operators; RuntimeError: a CPU that they do not support.
    except (AttributeError, RuntimeError):
        return False
    return True


@torch.inference_mode()
def prepack(model: nn.Module) -> int:
    """Replace the linear layers of a model on the CPU, fp32 or bf16, in place; returns their number."""
    count = 0
    for name, child in model.named_children():
        # A subclass may compute more than weight and bias.
        if type(child) is nn.Linear:
            setattr(model, name, PrepackedLinear(child))
            count += 1
        else:
            count += prepack(child)
    return count
