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
    unset = {name: v for name, v in os.environ.items() if not name.endswith("CACHE_CAPACITY")}
    command = [sys.executable, "-c", STEPS, whose]
    run = subprocess.run(command, env=unset, capture_output=True, text=True, check=True)
    before, after = (int(line) for line in run.stdout.split())
    return after - before


def test_new_shapes_cost_no_memory() -> None:
    ours, plain = _grown("ours"), _grown("plain")
    assert ours < 120
    # On a CPU that has oneDNN's kernels for bf16 it is a quarter of what PyTorch takes of itself.
    assert ours < plain / 2 or plain < 120
