"""The precision in which a device multiplies fastest."""

from __future__ import annotations

from typing import Literal

import torch


def multiplies_bf16(device: torch.device) -> bool:
    """Whether ``device`` has bf16 instructions: AVX512-BF16, AMX or Arm's bf16 of a CPU, or a GPU from Ampere on.

    Elsewhere bf16 products are emulated, and several times slower than fp32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16", "arm_bf16"))


def mixed(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> bool:
    """Whether products use bf16: by ``precision``, or for ``auto`` where ``device`` has bf16 instructions."""
    return precision == "bf16" or (precision == "auto" and multiplies_bf16(device))
