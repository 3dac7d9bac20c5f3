"""How fast is a tower trained, beside RecTools' and RecBole's SASRec, and LEARN against its released loop?

    make bench-train ARGS="--data /path/amazon-beauty-2014"

On the training part of leave-last-out Beauty (interactions.csv.gz with user, item, pos), batches of 256 users, windows
of 50. SASRec is of the published recipe: 64-d, one block, one head, dropout 0.2; LEARN has two layers of 256. Each
contender trains in a process of its own by its own loop, data loading included, and they take turns. Peers are timed
for --seconds after three steps, ours by the training loop's own log of the second epoch; on a shared machine the
processor's seconds (with --threads 1) say more than the clock's. RecTools and RecBole get an environment of their own
in --peers (uv), with our versions of torch and numpy.

Targets are items predicted: RecBole makes a sample of every prefix, the others predict at every position. RecBole is
run with batches of 256 prefixes and with its default, 2,048, which is about what 256 users hold. Ours and RecTools pad
or pack a user once; RecBole pads every prefix.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import train_peers
from benchmarks.peers import make_environment
from benchmarks.train_peers import BATCH, DROPOUT, LEARN_SHAPE, NEGATIVES, RATE, WIDTH, WINDOW

IN_PEERS = (
    f"RecTools, {NEGATIVES} negatives",
    "RecTools, full softmax",
    "RecBole, full softmax, batch 256",
    "RecBole, full softmax, batch 2048",
)
RELEASED = "LEARN, released loop"
OURS = (
    f"ours, {NEGATIVES} negatives a position",
    f"ours, {NEGATIVES} negatives a batch",
    "ours, full softmax",
    "ours LEARN, one pair a user",
    "ours LEARN, 5 x 3 pairs a user",
)
PAIRS = (
    (OURS[0], IN_PEERS[0]),
    (OURS[1], IN_PEERS[0]),
    *((OURS[2], peer) for peer in IN_PEERS[1:]),
    *((learn, RELEASED) for learn in OURS[3:]),
)
CONTENDERS = (*OURS, *IN_PEERS, RELEASED)
STORED = 208


def main(arguments: list[str]) -> int:
    """Run all, print one line of JSON."""
    parser = argparse.ArgumentParser(prog="make bench-train", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peers", type=Path, default=Path("var/peers-train"))
    parser.add_argument("--users", type=int, default=0, help="a random sample of so many; 0: all")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--contenders", nargs="*", default=CONTENDERS, choices=CONTENDERS)
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    histories = read_histories(options.data / "interactions.csv.gz")
    n_items = max(int(history.max()) for history in histories)
    if options.users:
        chosen = np.random.default_rng(0).permutation(len(histories))[: options.users]
        histories = [histories[user] for user in chosen]
    content = np.random.default_rng(0).standard_normal((n_items + 1, LEARN_SHAPE["content_dim"]), dtype=np.float32)
    if options.only:
        sys.argv = sys.argv[:1]  # RecBole reads it
        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        if options.only in OURS:
            print(json.dumps(ours(options.only, histories, content)))
        else:
            print(json.dumps(train_peers.run(options.only, histories, content, options.seconds)))
        return 0
    python = install_peers(options.peers) if set(options.contenders) & set(IN_PEERS) else Path(sys.executable)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in options.contenders}
    for turn in range(options.repeats):
        for name in options.contenders:
            interpreter = python if name in IN_PEERS else Path(sys.executable)
            command = [str(interpreter), "-m", "benchmarks.train", "--data", str(options.data.resolve())]
            command += ["--users", str(options.users), "--seconds", str(options.seconds)]
            command += ["--threads", str(options.threads), "--only", name]
            done = subprocess.run(
                command, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True
            )
            if done.returncode:
                print(f"{name} failed: {done.stderr[-1500:]}", file=sys.stderr)
                return 1
            runs[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
            print(turn, name, runs[name][-1], file=sys.stderr, flush=True)
    medians = {
        name: {key: round(statistics.median(run[key] for run in found)) for key in found[0]}
        for name, found in runs.items()
    }
    figures: dict[str, Any] = {
        "benchmark": "train",
        "users": len(histories),
        "items": n_items,
        "targets": sum(len(history) - 3 for history in histories),
        "batch_users": BATCH,
        "cores": os.cpu_count(),
        "runs": medians,
        "threads": options.threads,
        "to_peer": {
            f"{name} / {peer}": {
                key: round(medians[name][key] / medians[peer][key], 1) for key in ("targets_per_s", "targets_per_cpu_s")
            }
            for name, peer in PAIRS
            if name in medians and peer in medians
        },
    }
    print(json.dumps(figures))
    return 0


def read_histories(path: Path) -> list[np.ndarray]:
    """Item numbers from 1, in the order of each user's history."""
    items: dict[str, int] = {}
    users: dict[str, list[tuple[int, int]]] = {}
    with gzip.open(path, "rt", newline="") as file:
        for row in csv.DictReader(file):
            users.setdefault(row["user"], []).append((int(row["pos"]), items.setdefault(row["item"], len(items) + 1)))
    return [np.array([item for _, item in sorted(events)]) for events in users.values()]


def ours(name: str, histories: list[np.ndarray], content: np.ndarray) -> dict[str, float]:
    """The training loop over a Delta snapshot of histories, as the pipeline has it; the second epoch counts."""
    import pyarrow as pa
    from deltalake import write_deltalake

    from learn_spark.core.console import Reporter
    from learn_spark.core.settings.histories import FeedSettings
    from learn_spark.core.settings.training import ObjectiveSettings, TrainingSettings
    from learn_spark.core.tables.snapshot import Snapshot
    from learn_spark.model.feed.stream import HistoryStream
    from learn_spark.model.towers.content import ContentTower
    from learn_spark.model.towers.sasrec import SASRec
    from learn_spark.model.towers.tower import Tower
    from learn_spark.model.training.batches import BatchMaker
    from learn_spark.model.training.loop import TrainingLoop
    from learn_spark.model.training.objective import ObjectiveLoss
    from learn_spark.model.training.process_group import ProcessGroup

    n_items = len(content) - 1
    if "LEARN" in name:
        learn = ContentTower(n_items=n_items, **LEARN_SHAPE, dropout=DROPOUT, item_tower="a")
        learn.bind(content)
        tower: Tower = learn
        pairs = (5, 5, 3) if "5 x 3" in name else (1, 1, 1)
        objective = ObjectiveSettings(
            history=WINDOW, targets=pairs[0], history_positions=pairs[1], target_positions=pairs[2], temperature=0.05
        )
    else:
        tower = SASRec(
            n_items=n_items,
            max_length=WINDOW,
            width=WIDTH,
            layers=1,
            heads=1,
            ffn=WIDTH,
            dropout=DROPOUT,
        )
        objective = ObjectiveSettings(
            predicts="next_item",
            negatives="full" if "full" in name else "uniform",
            n_negatives=NEGATIVES,
            per_position="a position" in name,
            history=WINDOW,
            temperature=1.0,
        )
    maker = BatchMaker(objective, n_items=n_items, seed=0)
    with tempfile.TemporaryDirectory(prefix="bench-train-") as folder:
        rows = np.zeros((len(histories), STORED), dtype=np.int32)
        for row, history in zip(rows, histories, strict=True):
            row[: len(history)] = history
        table = pa.table(
            {
                "item_index": pa.FixedSizeListArray.from_arrays(rows.ravel(), STORED).cast(pa.list_(pa.int32())),
                "train_end": np.zeros(len(rows), np.int32),
                "train_length": np.array([len(history) - 2 for history in histories], np.int32),
            }
        )
        write_deltalake(f"{folder}/histories", table)
        snapshot = Snapshot.open(f"{folder}/histories")
        feed = FeedSettings(batch_size=BATCH, bucket_batches=8 if "LEARN" in name else 1)
        stream = HistoryStream(
            snapshot,
            maker.columns,
            shuffle_rows=feed.shuffle_rows,
            seed=0,
            bucket_batches=feed.bucket_batches,
            length_column="train_length",
        )
        ends: list[float] = []

        def epoch_ended(_: Tower) -> dict[str, float]:
            ends.append(time.process_time())
            return {"NDCG@10": 0.0}

        loop = TrainingLoop(
            tower=tower,
            loss=ObjectiveLoss(objective, log_q=None, group=ProcessGroup()),
            stream=stream,
            maker=maker,
            feed=feed,
            training=TrainingSettings(
                epochs=2, learning_rate=RATE, schedule="constant", warmup_share=0.0, weight_decay=0.0
            ),
            validate=epoch_ended,
            folder=Path(folder) / "run",
            console=Reporter(quiet=True),
        )
        rate = loop.fit().curve[1]["samples_per_second"]
    cpu_rate = len(histories) / (ends[1] - ends[0])
    each = 1.0 if "LEARN" in name else sum(min(len(history) - 3, WINDOW) for history in histories) / len(histories)
    return {
        "sequences_per_s": rate,
        "targets_per_s": rate * each,
        "targets_per_cpu_s": cpu_rate * each,
        "ms_per_step": 1000 * BATCH / rate,
        "parameters": tower.parameter_count(),
    }


def install_peers(place: Path) -> Path:
    """Make the peers' environment where it is not there, with our versions of what both use; returns its Python."""
    packages = (*train_peers.PEERS, *train_peers.PEERS_MORE)
    return make_environment(place, packages, ("torch", "numpy", "pandas"), train_peers.WITHOUT_DEPENDENCIES)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
