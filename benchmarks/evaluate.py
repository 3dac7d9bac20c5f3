"""How fast are all users' targets ranked in the whole catalogue, beside torch's matmul and topk, and RecBole?

    make bench-evaluate
    make bench-evaluate ARGS="--large"

Random vectors, a history and one target a user; all contenders rank the same. Ours gives whole ranks (HR, recall and
NDCG at any k, and MRR); torch scores a block of users against all items, sets histories to -inf and takes the best 200;
RecBole does its full-sort evaluation (Trainer.evaluate with Hit and NDCG up to 200) of a model that hands out these
vectors. By default RecBole takes 4,096 scores a batch, a user or so; the contender ``RecBole`` is given as many users a
batch as torch. Each contender has a process of its own, and they take turns; making the data and RecBole's data set is
not counted. HR@10 and NDCG@10 must agree, else there are no figures: but for two users, whose close scores float32 may
order otherwise. ``--large`` is 1 M items of 64 and 100 k users, ours alone. RecBole gets an environment of its own in
--peers, as benchmarks/train.py makes it.
"""

# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

OURS, TORCH, RECBOLE, BY_DEFAULT = "ours", "torch matmul + topk", "RecBole", "RecBole, its default batch"
CONTENDERS = (OURS, TORCH, RECBOLE, BY_DEFAULT)
KS = (10, 50, 100, 200)
BATCH_USERS = 256
TRIED = 200  # a target is the best of so many random items, so that some are found
SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class Data:
    """``users`` [B, D], ``items`` [N, D], ``targets`` [B], ``history`` [B, H] without the target, an item once."""

    users: np.ndarray
    items: np.ndarray
    targets: np.ndarray
    history: np.ndarray

    @staticmethod
    def make(users: int, items: int, width: int, history: int) -> Data:
        """The same for every contender."""
        generator = np.random.default_rng(0)
        u = generator.standard_normal((users, width), dtype=np.float32)
        v = generator.standard_normal((items, width), dtype=np.float32)
        targets = np.empty(users, np.int64)
        for start in range(0, users, 1024):
            part = slice(start, min(start + 1024, users))
            tried = generator.integers(0, items, (part.stop - part.start, TRIED))
            best = np.einsum("bd,btd->bt", u[part], v[tried]).argmax(axis=1)
            targets[part] = tried[np.arange(len(best)), best]
        # Consecutive items from a random place on, the target's own place left out: all different.
        first = targets + generator.integers(1, items - history, users)
        return Data(u, v, targets, (first[:, None] + np.arange(history)) % items)


def main(arguments: list[str]) -> int:
    """Run all, print one line of JSON."""
    parser = argparse.ArgumentParser(prog="make bench-evaluate", description=__doc__)
    parser.add_argument("--users", type=int)
    parser.add_argument("--items", type=int)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--history", type=int, default=9, help="items a user had before")
    parser.add_argument("--large", action="store_true", help="100 k users, 1 M items, ours alone, once")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--contenders", nargs="*", choices=CONTENDERS)
    parser.add_argument("--peers", type=Path, default=Path("var/peers-train"))
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    users = options.users or (100_000 if options.large else 20_000)
    items = options.items or (1_000_000 if options.large else 12_000)
    if options.only:
        sys.argv = sys.argv[:1]  # RecBole reads it
        print(json.dumps(alone(options.only, Data.make(users, items, options.width, options.history), options.threads)))
        return 0
    contenders = options.contenders or ((OURS,) if options.large else CONTENDERS)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for turn in range(options.repeats or (1 if options.large else 3)):
        for name in contenders:
            command = [_python(name, options.peers), "-m", "benchmarks.evaluate", "--only", name]
            for option in ("width", "history", "threads"):
                command += [f"--{option}", str(getattr(options, option))]
            command += ["--users", str(users), "--items", str(items)]
            # One thread a matrix product: ours has as many products at once as threads.
            environment = {
                **os.environ,
                "CUDA_VISIBLE_DEVICES": "",
                "OPENBLAS_NUM_THREADS": "1",
                "PYTHONWARNINGS": "ignore",
            }
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                print(f"{name} failed", file=sys.stderr)
                return 1
            runs[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
            print(turn, name, runs[name][-1], file=sys.stderr, flush=True)
    told = ("users_per_s", "users_per_cpu_s", "peak_mb", "peak_mb_before", "HR@10", "NDCG@10", "MRR")
    medians = {
        name: {key: statistics.median(run[key] for run in found) for key in told if key in found[0]}
        for name, found in runs.items()
    }
    for metric in ("HR@10", "NDCG@10"):
        values = {name: found[metric] for name, found in medians.items()}
        if max(values.values()) - min(values.values()) > 2 / users:
            print(f"the contenders do not agree on {metric}: {values}", file=sys.stderr)
            return 1
    figures: dict[str, Any] = {
        "benchmark": "evaluate",
        "users": users,
        "items": items,
        "width": options.width,
        "threads": options.threads,
        "cores": os.cpu_count(),
        "runs": {name: {key: float(f"{value:.6g}") for key, value in found.items()} for name, found in medians.items()},
        "ours_to_peer": {
            name: round(medians[OURS]["users_per_s"] / found["users_per_s"], 1)
            for name, found in medians.items()
            if OURS in medians and name != OURS
        },
    }
    print(json.dumps(figures))
    return 0


def alone(name: str, data: Data, threads: int) -> dict[str, float]:
    """One contender in this process: metrics, users a second, and the process's peak memory before and after."""
    work = {OURS: ours, TORCH: by_torch}.get(name)
    before = _peak_mb()
    if work is not None:
        metrics, seconds, cpu_seconds = work(data, threads)
    else:
        metrics, seconds, cpu_seconds = recbole(data, threads, BATCH_USERS if name == RECBOLE else None)
    rates = {"users_per_s": len(data.users) / seconds, "users_per_cpu_s": len(data.users) / cpu_seconds}
    return {**rates, "peak_mb": _peak_mb(), "peak_mb_before": before, **metrics}


def ours(data: Data, threads: int) -> tuple[dict[str, float], float, float]:
    """Whole ranks, counted in blocks, and the metrics of all of KS, MRR among them."""
    from learn_spark.model.scoring.metrics import summarise
    from learn_spark.model.scoring.ranks import ranks_from_vectors

    told = begun = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal told, done
        done += count
        if (now := time.monotonic()) - told > SECONDS_BETWEEN_LINES:
            told = now
            print(f"{done:,} of {len(data.users):,} users, {done / (now - begun):,.0f}/s", file=sys.stderr, flush=True)

    clock, cpu = time.perf_counter(), time.process_time()
    found = ranks_from_vectors(
        data.users, data.items, data.targets, list(data.history), threads=threads, advance=advance
    )
    metrics = summarise(found, KS)
    return metrics, time.perf_counter() - clock, time.process_time() - cpu


def by_torch(data: Data, threads: int) -> tuple[dict[str, float], float, float]:
    """Blocks of users against all items at once; the places of the targets among the best 200."""
    import torch

    torch.set_num_threads(threads)
    users, items = torch.from_numpy(data.users), torch.from_numpy(data.items)
    targets, history = torch.from_numpy(data.targets), torch.from_numpy(data.history)
    clock, cpu = time.perf_counter(), time.process_time()
    places = torch.full((len(users),), math.inf)
    with torch.inference_mode():
        for start in range(0, len(users), BATCH_USERS):
            part = slice(start, start + BATCH_USERS)
            scores = users[part] @ items.T
            scores.scatter_(1, history[part], -math.inf)
            found = scores.topk(max(KS), dim=1).indices == targets[part, None]
            row, place = found.nonzero(as_tuple=True)
            places[row + start] = place.float()
    metrics = {}
    for k in KS:
        inside = places < k
        metrics[f"HR@{k}"] = float(inside.double().mean())
        metrics[f"NDCG@{k}"] = float(torch.where(inside, 1 / torch.log2(places.double() + 2), 0.0).mean())
    return metrics, time.perf_counter() - clock, time.process_time() - cpu


def recbole(data: Data, threads: int, batch_users: int | None) -> tuple[dict[str, float], float, float]:
    """RecBole's Trainer.evaluate over its full-sort loader; a user's last event is the target, by time."""
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.abstract_recommender import GeneralRecommender
    from recbole.trainer import Trainer

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory(prefix="bench-evaluate-") as folder:
        os.chdir(folder)
        Path("bench").mkdir()
        with Path("bench/bench.inter").open("w") as file:
            file.write("user_id:token\titem_id:token\ttimestamp:float\n")
            for user, (seen, target) in enumerate(zip(data.history, data.targets, strict=True)):
                file.writelines(f"{user}\t{item}\t{at}\n" for at, item in enumerate([*seen, target]))
        with Path("bench/bench.item").open("w") as file:
            file.write("item_id:token\n")
            file.writelines(f"{item}\n" for item in range(len(data.items)))
        settings: dict[str, Any] = {
            "data_path": folder,
            "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id"]},
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
            "metrics": ["Hit", "NDCG"],
            "topk": list(KS),
            "valid_metric": "NDCG@10",
            "metric_decimal_place": 9,
            "use_gpu": False,
            "show_progress": False,
            "state": "ERROR",
        }
        if batch_users is not None:
            settings["eval_batch_size"] = batch_users * (len(data.items) + 1)
        config = Config(model="BPR", dataset="bench", config_dict=settings)
        dataset = create_dataset(config)
        train, _, test = data_preparation(config, dataset)

        def in_order(field: str, vectors: np.ndarray) -> torch.Tensor:
            tokens = dataset.field2id_token[field][1:].astype(np.int64)  # the first is padding
            return torch.from_numpy(np.concatenate([np.zeros_like(vectors[:1]), vectors[tokens]]))

        class Fixed(GeneralRecommender):
            """Hands out the vectors."""

            def __init__(self) -> None:
                super().__init__(config, train.dataset)
                self.users, self.items = in_order("user_id", data.users), in_order("item_id", data.items)
                self.unused = torch.nn.Parameter(torch.zeros(1))

            def full_sort_predict(self, interaction: Any) -> torch.Tensor:
                return (self.users[interaction["user_id"]] @ self.items.T).view(-1)

        trainer = Trainer(config, Fixed())
        clock, cpu = time.perf_counter(), time.process_time()
        found = trainer.evaluate(test, load_best_model=False)
        seconds, cpu_seconds = time.perf_counter() - clock, time.process_time() - cpu
    names = {f"{theirs}@{k}": f"{our}@{k}" for theirs, our in (("hit", "HR"), ("ndcg", "NDCG")) for k in KS}
    return {our: float(found[theirs]) for theirs, our in names.items()}, seconds, cpu_seconds


def _python(name: str, peers: Path) -> str:
    if name not in (RECBOLE, BY_DEFAULT):
        return sys.executable
    from benchmarks.train import install_peers

    return str(install_peers(peers))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
