"""How long does an exported user tower take for one user and for 64, on one core?

    make bench-export
    make bench-export ARGS="--items 50000 --calls 500"

Towers of random weights in the sizes of conf/learn.yaml, 50 events a user, content of 576 numbers; onnxruntime with one
thread beside the packed tower in torch with one thread, in turns. Prints JSON: milliseconds of a call (p50 and p99).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from learn_spark.model.export.graph import UserGraph
from learn_spark.model.export.write import FILES, write
from learn_spark.model.towers.registry import tower_of_shape
from learn_spark.model.towers.tower import Tower
from learn_spark.model.towers.vectors import user_vectors

WINDOW, CONTENT = 50, 576
SIZES: dict[str, Any] = {"width": 128, "layers": 2, "heads": 4, "dropout": 0.1}
SHAPES: dict[str, dict[str, Any]] = {
    "learn": {"ffn": 512, "content_dim": CONTENT, "output_dim": 64, "item_tower": "a"},
    "learn-plus": {"ffn": 512, "content_dim": CONTENT, "max_length": WINDOW},
    "sasrec": {"ffn": 512, "max_length": WINDOW},
    "hstu": {"dqk": 32, "dv": 32, "max_length": WINDOW},
    "bsarec": {"ffn": 512, "max_length": WINDOW, "alpha": 0.7, "c": 5},
}


def tower(kind: str, items: int) -> Tower:
    """A tower of random weights over a catalogue of random content."""
    made = tower_of_shape({"kind": kind, "n_items": items, **SIZES, **SHAPES[kind]}).eval()
    if kind.startswith("learn"):
        content = np.random.default_rng(0).normal(size=(items + 1, CONTENT)).astype(np.float32)
        made.bind(content)  # type: ignore[operator]
    return made


def milliseconds(calls: dict[str, Callable[[], object]], count: int) -> dict[str, dict[str, float]]:
    """Name -> p50 and p99 of ``count`` calls, in turns, after a tenth as many that do not count."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(count + count // 10):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if number >= count // 10:
                took[name].append(1000 * (time.perf_counter() - start))
    return {
        name: {f"p{share}": round(float(np.percentile(times, share)), 2) for share in (50, 99)}
        for name, times in took.items()
    }


def measure(kind: str, items: int, count: int) -> dict[str, Any]:
    """The figures of one kind of tower, and the size of its file."""
    made, chance = tower(kind, items), np.random.default_rng(1)
    graph = UserGraph(made, WINDOW).eval()
    with tempfile.TemporaryDirectory() as folder:
        write(graph, Path(folder), "onnx")
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(Path(folder) / FILES["onnx"]), options)
    figures: dict[str, Any] = {"MB": round(size / 1e6, 1)}
    for users in (1, 64):
        inputs = {"items": chance.integers(1, items + 1, (users, WINDOW))}
        times = chance.integers(0, 10**12, inputs["items"].shape).cumsum(axis=1)
        if graph.content_dim:
            inputs["new_items"] = np.zeros((0, CONTENT), np.float32)
        if graph.needs_times:
            inputs["times"] = times
        lengths = np.full(users, WINDOW)

        def by_onnx(inputs: dict[str, Any] = inputs) -> Any:
            return session.run(["vectors"], inputs)[0]

        def by_torch(items: Any = inputs["items"], lengths: Any = lengths, times: Any = times) -> np.ndarray:
            return user_vectors(made, items, lengths, WINDOW, times=times)

        assert np.allclose(by_onnx(), by_torch(), atol=1e-4)
        figures[f"{users} users"] = milliseconds({"onnxruntime": by_onnx, "torch": by_torch}, count)
    return figures


def main() -> None:
    """Measure every kind of tower."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=12_000)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--kinds", nargs="*", default=list(SHAPES))
    given = parser.parse_args()
    torch.set_num_threads(1)
    for kind in given.kinds:
        print(json.dumps({kind: measure(kind, given.items, given.calls)}), flush=True)


if __name__ == "__main__":
    main()
