"""Linear layers for the CPU with weights laid out once for oneDNN's kernels, which on many CPUs outrun MKL's."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PrepackedLinear(nn.Module):
    """``linear`` on the CPU, frozen: same numbers but for the last bits, its weights in oneDNN's own layout.

    The layout is what torch.compile's freezing gives linear layers, by the same operators.
    """

    # The usual batch of the engine: the layout is chosen for it, and right for any.
    ROWS = 2048

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), self.ROWS)
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, rows: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._weight, self._bias, "none", [], "")
        return product


def can_prepack(dtype: torch.dtype) -> bool:
    """Whether oneDNN lays out and multiplies weights of ``dtype`` here: bf16 requires a CPU with AVX512."""
    try:
        with torch.inference_mode():
            PrepackedLinear(nn.Linear(8, 8, dtype=dtype))(torch.zeros(2, 8, dtype=dtype))
    # A build without the operators has no such attribute; a CPU that they refuse is a RuntimeError.
    except (AttributeError, RuntimeError):
        return False
    return True


@torch.inference_mode()
def prepack(model: nn.Module) -> int:
    """Replace the linear layers of a model on the CPU, fp32 or bf16, in place; their number."""
    count = 0
    for name, child in model.named_children():
        # A subclass may do more than its weight and bias say.
        if type(child) is nn.Linear:
            setattr(model, name, PrepackedLinear(child))
            count += 1
        else:
            count += prepack(child)
    return count
