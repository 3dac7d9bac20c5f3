"""Do runs end whose memory the operating system limits?

    make bench-load ARGS="--what ranks --items 1000000 --users 2000 --mib 700"
    make bench-load ARGS="--what push --users 1000000 --items 100000 --mib 900"
    make bench-load ARGS="--what publish --users 1000000 --items 100000 --mib 4000"

``ranks``: exact ranks of a target of each user among all items; vectors are files that are mapped into memory.
``push``: a release of so many vectors is pushed to an empty online store, a SQLite file and a Redis; the Redis is no
part of the limit. ``publish``: a SASRec of 64 dimensions that was trained on ``TRAINED_ON`` users releases the vectors
of all, by the command that a user gives, with its Java process and workers. What is measured is a process of its own in
a control group (benchmarks.limited); making its data is not. The last line is JSON: exit codes (-9: the kernel killed
it), seconds, peak memory of the group in MiB, and the MiB of the data itself.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.limited import run_limited
from benchmarks.scale import add_histories, generate, write_scale_settings
from learn_spark.core.settings import load_settings
from learn_spark.core.tables.workspace import Workspace

WIDTH, HISTORY = 64, 50
HERE = (sys.executable, "-m", "benchmarks.load", "--what")
TRAINED_ON = 2_000  # users of the model that publishes


def make_vectors(folder: Path, users: int, items: int) -> int:
    """Write random vectors as files; their MiB."""
    chance, total = np.random.default_rng(1), 0
    for name, count in (("users", users), ("items", items)):
        made = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (count, WIDTH))
        for start in range(0, count, 100_000):
            made[start : start + 100_000] = chance.standard_normal((min(100_000, count - start), WIDTH))
        total += made.nbytes
        del made
    return total >> 20


def rank_here(folder: Path) -> dict[str, Any]:
    """Rank in this process."""
    from learn_spark.model.scoring.ranks import ranks_from_vectors

    users, items = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("users", "items"))
    chance = np.random.default_rng(2)
    targets = chance.integers(len(items), size=len(users))
    seen = [np.setdiff1d(chance.integers(len(items), size=HISTORY), [target]) for target in targets]
    began = time.monotonic()
    ranks = ranks_from_vectors(users, items, targets, seen)
    seconds = time.monotonic() - began
    # A sample, ranked by a sort of all scores.
    for user in range(0, len(users), max(1, len(users) // 5)):
        scores = items @ users[user]
        scores[seen[user]] = -np.inf
        assert abs(ranks[user] - 1 - (scores > scores[targets[user]] + 1e-6).sum()) <= 2, user
    return {"seconds": round(seconds, 1), "users/s": round(len(users) / seconds, 1)}


def push_here(place: str, url: str) -> dict[str, Any]:
    """Push the release of a workspace in this process."""
    from learn_spark.core.settings.online import OnlineSettings
    from learn_spark.features.online_store.address import open_store
    from learn_spark.features.online_store.push import push

    settings = OnlineSettings.model_validate({"namespace": "load"})
    done = push(Workspace.existing(place), open_store(url, settings.namespace), settings)
    return {"seconds": round(done.seconds, 1), "vectors": done.written}


def publish(folder: Path, users: int, items: int, mib: int) -> dict[str, Any]:
    """The report of a publication of so many users and items."""
    from learn_spark.features.read import released_arrow

    config, workspace = write_scale_settings(folder), Workspace.open(f"{folder}/workspace")
    generate(workspace, min(TRAINED_ON, users), items, load_settings(config))
    program = str(Path(sys.executable).parent / "learn-spark")
    subprocess.run([program, "train", "--config", str(config)], check=True, stdout=sys.stderr)
    add_histories(workspace, TRAINED_ON, users - TRAINED_ON, items)
    began = time.monotonic()
    report = measure([program, "publish", "--config", str(config)], mib)
    if report["code"] == 0:
        report["seconds"] = round(time.monotonic() - began, 1)
        found = [released_arrow(workspace, table).num_rows for table in ("user_features", "item_features")]
        assert found == [users, items], found
    return report


def measure(command: list[str], mib: int) -> dict[str, Any]:
    """The report of a process with a limit; the last line of its output where that is JSON."""
    done = run_limited(command, mib, {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
    report = {"code": done.code, "limit MiB": mib, "peak MiB": done.peak}
    last = done.output.splitlines()[-1] if done.output else ""
    return report | (json.loads(last) if done.code == 0 and last.startswith("{") else {})


def main(arguments: list[str]) -> int:
    """1 where a process did not end by itself."""
    parser = argparse.ArgumentParser(prog="make bench-load", description=__doc__)
    parser.add_argument("--what", choices=("ranks", "push", "publish"), required=True)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--mib", type=int, default=700)
    parser.add_argument("--here", nargs="+", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.here:
        print(json.dumps(rank_here(Path(chosen.here[0])) if chosen.what == "ranks" else push_here(*chosen.here)))
        return 0
    reports: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench-load-") as name:
        folder = Path(name)
        if chosen.what == "ranks":
            reports["data MiB"] = make_vectors(folder, chosen.users, chosen.items)
            reports["ranks"] = measure([*HERE, "ranks", "--here", name], chosen.mib)
        elif chosen.what == "publish":
            reports["data MiB"] = (chosen.users + chosen.items) * WIDTH * 4 >> 20
            reports["publish"] = publish(folder, chosen.users, chosen.items, chosen.mib)
        else:
            from benchmarks.online import Releases
            from tests.servers import redis_server

            releases = Releases(folder / "workspace", {"user_features": chosen.users, "item_features": chosen.items})
            releases.publish(1.0)
            reports["data MiB"] = sum(one.nbytes for one in releases.vectors.values()) >> 20
            releases.vectors.clear()
            with redis_server(folder) as redis:
                for store, url in (("sqlite", f"sqlite:///{folder}/online.db"), ("redis", redis)):
                    where = [*HERE, "push", "--here", str(folder / "workspace"), url]
                    reports[store] = measure(where, chosen.mib)
                    print(store, reports[store], file=sys.stderr, flush=True)
    print(
        json.dumps({"benchmark": "load", "what": chosen.what, "users": chosen.users, "items": chosen.items, **reports})
    )
    return int(any(report["code"] for report in reports.values() if isinstance(report, dict)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
