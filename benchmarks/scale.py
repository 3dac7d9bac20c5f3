"""How do time and memory of the stages after the histories grow with the number of users?

    make bench-scale                                             100,000, 300,000 and 1 M users x 1 M items
    make bench-scale ARGS="--users 1e5 1e6 --items 1e5"          other sizes

A shop is generated: items by Zipf's law, 32 events a user in the mean, leave-last-out. Its histories, items, texts and
embeddings (64 random numbers) are written as Delta tables, and each stage then runs as the command that a user gives,
with SASRec (64-d, one block, 256 uniform negatives), one epoch. Every process may have --memory GiB of data
(RLIMIT_DATA). Seconds are those of the clock; memory is the peak resident set of Python's processes and of Java's. Of a
stage that fails, the last line of its error is printed, and larger sizes are still tried.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.text.templates import template
from learn_spark.encoder.identity import identify

WIDTH, FILE_ROWS, DAY = 64, 65_536, 86_400_000_000
FIRST_DAY = 1_700_000_000_000_000
STAGES = ("train", "evaluate", "export_index")
HIDDEN = 64
SETTINGS = """\
extends: {preset}.yaml
workspace: {folder}/workspace
encoder: {{model: {folder}/llm}}
histories: {{max_length: {width}}}
tower: {{kind: sasrec, width: 64, layers: 1, heads: 1, ffn: 64, dropout: 0.2, similarity: dot}}
objective: {{predicts: next_item, history: 50, negatives: uniform, n_negatives: 256, temperature: 1.0}}
training: {{epochs: 1, passes_per_epoch: 1, learning_rate: 0.001, seed: 1}}
feed: {{batch_size: 256}}
evaluation: {{ks: [10], bootstrap_samples: 100}}
"""


def write_scale_settings(folder: Path, preset: str = "learn") -> Path:
    """Write the settings of a shop in ``folder``, and an encoder that is never loaded; the settings' path."""
    (folder / "llm").mkdir()
    (folder / "llm" / "model.safetensors").write_bytes(b"weights that no stage here loads")
    config = folder / "scale.yaml"
    config.write_text(SETTINGS.format(preset=preset, folder=folder, width=WIDTH), encoding="utf-8")
    return config


def generate(workspace: Workspace, users: int, items: int, settings: Settings) -> None:
    """The tables that the stages read, a file of 65,536 rows at a time."""
    for start in range(0, items, FILE_ROWS):
        _catalogue(workspace, np.arange(start + 1, min(start + FILE_ROWS, items) + 1), settings)
    add_histories(workspace, 0, users, items)


def add_histories(workspace: Workspace, first: int, users: int, items: int) -> None:
    """Add ``users`` rows to user_histories, whose users are numbered from ``first`` on."""
    chance = np.random.default_rng(first)
    schema = contract("user_histories").arrow_schema()
    weights = 1.0 / np.arange(1, items + 1) ** 1.05
    shares = np.cumsum(weights) / weights.sum()
    for start in range(0, users, FILE_ROWS):
        n = min(FILE_ROWS, users - start)
        lengths = np.minimum(3 + chance.geometric(1 / 29, n), WIDTH).astype(np.int32)
        inside = np.arange(WIDTH) < lengths[:, None]
        drawn = np.searchsorted(shares, chance.random((n, WIDTH))).astype(np.int32)
        columns: dict[str, Any] = {
            "user_id": pa.array([f"user{first + start + i:09}" for i in range(n)]),
            "chunk": np.zeros(n, np.int32),
            "item_index": np.where(inside, np.minimum(drawn, items - 1) + 1, 0),
            "event_time": np.where(inside, FIRST_DAY + np.arange(WIDTH) * DAY, 0),
            "weight": inside.astype(np.float32),
            "length": lengths,
            "train_end": np.zeros(n, np.int32),
            "train_length": lengths - 2,
            "validation_length": lengths - 1,
            "n_events": lengths.astype(np.int64),
        }
        arrays = []
        for field in schema:
            values = columns[field.name]
            if isinstance(values, np.ndarray) and values.ndim == 2:
                values = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), field.type.value_type), WIDTH)
            arrays.append(
                pa.array(values).cast(field.type) if isinstance(values, np.ndarray) else values.cast(field.type)
            )
        write_deltalake(workspace.table("user_histories"), pa.Table.from_arrays(arrays, schema=schema), mode="append")


def _catalogue(workspace: Workspace, numbers: np.ndarray, settings: Settings) -> None:
    n = len(numbers)
    titles = [f"Item {number}" for number in numbers]
    vectors = np.random.default_rng(numbers).standard_normal((n, HIDDEN), dtype=np.float32)
    columns: dict[str, Any] = {
        "item_id": pa.array([f"item{number:08}" for number in numbers]),
        "item_index": pa.array(numbers),
        "title": pa.array(titles),
        "text": pa.array(titles),
        "text_key": pa.array([hashlib.sha256(title.encode()).hexdigest() for title in titles]),
        "template_version": pa.array([template(settings.text.template).key] * n),
        "encoder_key": pa.array([identify(settings.encoder).key] * n),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), HIDDEN),
        "n_tokens": pa.array([3] * n),
    }
    for table in ("items", "item_index", "item_text", "text_embeddings"):
        schema = contract(table).arrow_schema()
        arrays = [columns[f.name].cast(f.type) if f.name in columns else pa.nulls(n, f.type) for f in schema]
        write_deltalake(workspace.table(table), pa.Table.from_arrays(arrays, schema=schema), mode="append")


def measure(command: list[str], memory: float) -> dict[str, Any]:
    """Seconds, peak MiB of Python's and Java's processes, and the last line of the output where it failed."""
    limit = int(memory * 2**30)
    peaks: dict[str, float] = {"python": 0.0, "java": 0.0}
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
        start_new_session=True,
    )
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            for pid in _session(process.pid):
                kind, mib = _peak(pid)
                if kind:
                    peaks[kind] = max(peaks[kind], mib)

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    done.set()
    watcher.join()
    result: dict[str, Any] = {f"{kind} MiB": round(mib) for kind, mib in peaks.items()}
    result["seconds"] = round(time.perf_counter() - started, 1)
    if process.returncode:
        result["failed"] = next((line for line in reversed(output.splitlines()) if line.strip()), "")[:200]
    print(output[-2000:], file=sys.stderr)
    return result


def _session(leader: int) -> list[int]:
    """The processes of the session of ``leader``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if os.getsid(int(entry.name)) == leader:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def _peak(pid: int) -> tuple[str, float]:
    """("python" or "java", peak resident MiB) of a process; an empty name where it is another or gone."""
    try:
        status = (Path("/proc") / str(pid) / "status").read_text()
        program = (Path("/proc") / str(pid) / "exe").readlink().name
    except OSError:
        return "", 0.0
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    name = next((kind for kind in ("python", "java") if kind in program), "")
    return name, int(lines.get("VmHWM", "0 kB").split()[0]) / 1024


def main(arguments: list[str]) -> int:
    """Run all sizes, print one line of JSON each."""
    parser = argparse.ArgumentParser(prog="make bench-scale", description=__doc__)
    parser.add_argument("--users", type=float, nargs="+", default=[1e5, 3e5, 1e6])
    parser.add_argument("--items", type=float, default=1e6)
    parser.add_argument("--stages", nargs="+", default=STAGES, choices=STAGES)
    parser.add_argument("--memory", type=float, default=12.0, help="GiB of data that a process may have")
    parser.add_argument("--preset", default="learn")
    parser.add_argument(
        "--set", action="append", default=[], help="a setting of the stages, such as evaluation.users=1000"
    )
    options = parser.parse_args(arguments)
    for users in map(int, options.users):
        with tempfile.TemporaryDirectory(dir="var" if Path("var").is_dir() else None) as folder:
            workspace = Workspace.open(f"{folder}/workspace")
            config = write_scale_settings(Path(folder), options.preset)
            generate(workspace, users, int(options.items), load_settings(config))
            for stage in options.stages:
                command = [str(Path(sys.executable).parent / "learn-spark"), stage, "--config", str(config)]
                command += [word for override in options.set for word in ("--set", override)]
                row = {"stage": stage, "users": users, "items": int(options.items), **measure(command, options.memory)}
                print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
