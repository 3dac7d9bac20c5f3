"""In which precision a device makes its products fastest."""

from __future__ import annotations

from typing import Literal

import torch


def multiplies_bf16(device: torch.device) -> bool:
    """Whether ``device`` has instructions for products in bf16: AVX512-BF16 or AMX of a CPU, a GPU from Ampere on.

    Elsewhere they are emulated, and several times slower than in fp32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return any(bool(able.get(name)) for name in ("avx512_bf16", "amx_bf16", "arm_bf16"))


def mixed(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> bool:
    """Whether products are made in bf16: as ``precision`` says; ``auto``, where ``device`` has them."""
    return precision == "bf16" or (precision == "auto" and multiplies_bf16(device))
