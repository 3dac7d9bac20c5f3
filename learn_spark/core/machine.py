"""The machine as this process sees it."""

from __future__ import annotations

import os
import re
from pathlib import Path


def available_cores() -> list[int]:
    """The cores that this process may use, by number; all of the machine's where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def peak_memory_mib() -> int | None:
    """The largest resident memory of this process so far in MiB; None where the system does not say.

    Not getrusage's maximum: a child process begins with its parent's.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(peak[1]) // 1024 if peak else None


def multiplies_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU has instructions for bf16 products: AVX512-BF16, AMX or Arm's.

    False where the system does not say. Read from ``cpuinfo``, because PyTorch takes seconds to import.
    """
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return flags is not None and not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags[1].split())
