"""What does a training step cost with sparse gradients of ID vectors, beside dense ones?

    make bench-id_gradients                                      catalogues of 12,000, 100,000 and 1 M items
    make bench-id_gradients ARGS="--items 1e6 --steps 50"

SASRec (64-d, one block, 256 uniform negatives, 256 users of 50 events by Zipf's law a batch), two threads. A way and a
catalogue are a process of its own. A line of JSON has the median processor seconds of a step (loss, gradients,
clipping, AdamW) and the peak resident set, less that before the tower.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

USERS, LENGTH = 256, 50


def measure(gradients: str, items: int, steps: int) -> dict[str, object]:
    """Median processor seconds of a step and MiB of memory."""
    import torch

    from learn_spark.core.settings.training import ObjectiveSettings
    from learn_spark.model.towers.sasrec import SASRec
    from learn_spark.model.training.batches import BatchMaker
    from learn_spark.model.training.lazy_adamw import LazyAdamW, clip_gradients
    from learn_spark.model.training.objective import ObjectiveLoss
    from learn_spark.model.training.process_group import ProcessGroup

    torch.set_num_threads(2)
    before = _peak()
    objective = ObjectiveSettings(predicts="next_item", negatives="uniform", history=LENGTH, temperature=1.0)
    tower = SASRec(n_items=items, max_length=LENGTH, width=64, layers=1, heads=1, ffn=64, dropout=0.2)
    tower.embedding.sparse = gradients == "sparse"
    parameters, group = list(tower.parameters()), ProcessGroup()
    optimizer = LazyAdamW(parameters, lr=1e-3, fused=True)
    loss, maker = ObjectiveLoss(objective, log_q=None, group=group), BatchMaker(objective, n_items=items, seed=1)
    chance = np.random.default_rng(0)
    shares = np.cumsum(1 / np.arange(1, items + 1) ** 1.05)
    seconds = []
    for step in range(steps):
        drawn = np.searchsorted(shares, chance.random((USERS, LENGTH + 2)) * shares[-1]).astype(np.int32) + 1
        rows = {
            "item_index": drawn,
            "train_end": np.zeros(USERS, np.int32),
            "train_length": np.full(USERS, LENGTH, np.int32),
        }
        batch = maker.make(rows, turn=0, step=step)
        started = time.process_time()
        terms, count = loss(tower, batch)
        (terms / count).backward()
        group.sum_gradients(parameters)
        clip_gradients(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.process_time() - started)
    return {"processor seconds": round(float(np.median(seconds[2:])), 4), "MiB": round(_peak() - before)}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(arguments: list[str]) -> int:
    """Run both ways for every catalogue, in turns."""
    parser = argparse.ArgumentParser(prog="make bench-id_gradients", description=__doc__)
    parser.add_argument("--items", type=float, nargs="+", default=[12_000, 100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--way", choices=("dense", "sparse"), help="measure this way only, in this process")
    options = parser.parse_args(arguments)
    for items in map(int, options.items):
        if options.way:
            print(json.dumps({"way": options.way, "items": items, **measure(options.way, items, options.steps)}))
            continue
        for way in ("dense", "sparse"):
            command = [sys.executable, "-m", "benchmarks.id_gradients", "--way", way]
            subprocess.run([*command, "--items", str(items), "--steps", str(options.steps)], check=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
