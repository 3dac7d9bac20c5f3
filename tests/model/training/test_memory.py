"""Batches of ever new shapes, as sequences without padding make them, must not make a process grow."""

from __future__ import annotations

import os
import subprocess
import sys

STEPS = """if True:
    import sys
    from pathlib import Path
    from learn_spark.commands.app import quiet_environment
    if sys.argv[1] == "ours":
        quiet_environment(False)
    import torch

    def resident() -> int:
        return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) // 1024

    torch.set_num_threads(1)
    layers = torch.nn.Sequential(torch.nn.Linear(256, 768), torch.nn.GELU(), torch.nn.Linear(768, 256))
    sizes = [400 + 7 * step for step in range(150)]
    for step, rows in enumerate([max(sizes), *sizes]):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            layers(torch.randn(rows, 256)).float().sum().backward()
        if step in (30, 150):
            print(resident())
"""


def _grown(whose: str) -> int:
    env = {name: v for name, v in os.environ.items() if not name.endswith("CACHE_CAPACITY")}
    # Freed blocks go back to the system at once: what is resident is held, and no heap that is fragmented by chance.
    env |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", STEPS, whose]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    before, after = (int(line) for line in run.stdout.split())
    return after - before


def test_new_shapes_cost_no_memory() -> None:
    ours, plain = _grown("ours"), _grown("plain")
    assert ours < 10
    # A CPU without oneDNN's kernels for bf16 keeps none: PyTorch of itself does not grow there either.
    assert ours < plain / 2 or plain < 10
