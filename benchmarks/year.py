"""Does a workspace age? A year of daily deliveries of a tiny shop by the real commands, and a training a week.

    make bench-year ARGS="--folder /tmp/year"               as many days as there is time for; started again, it goes on
    make bench-year ARGS="--folder /tmp/year --days 10"

A day delivers a dozen orders and a correction and runs the stages up to the index; every seventh day brings a product,
trains and evaluates too, and ``learn-spark retain --delete`` follows. Runs are forks of a process that has imported
everything and whose Spark is warm (benchmarks.chaos_warm); that process is replaced every ``RENEWED`` days.

Each day is a line of FOLDER/days.jsonl: wall and CPU seconds of its run (the driver, Java and the workers), seconds of
its stages, bytes and files of the workspace, and a hash of the released vectors. On the ``LOOKED_AT`` days ``status``
and a run with nothing to do are timed, as processes of their own, and a copy of the workspace is reduced to its last
seven releases as if ``LATER`` days had passed (needs Debian's package faketime). At the end releases of all times are
read as of their days and compared with their hashes. The last line is JSON: medians of the days around day 10, 100, ...
that trained nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.chaos_shop import CUSTOMERS, PROGRAM, environment, write_chaos_settings, write_encoder
from benchmarks.chaos_warm import Warm
from benchmarks.clock import cpu_seconds
from benchmarks.shop import OPENED, write_orders, write_products
from learn_spark.core.tables.runs import all_runs
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.read import read_release, released_arrow

DAILY = "ingest,item_text,embed_items,histories,publish,export_index"
WEEKLY = "ingest,item_text,embed_items,histories,train,evaluate,publish,export_index"
FIRST_ORDERS, ORDERS_A_DAY, PRODUCTS = 240, 12, 20
# A model of two epochs on 24 users is sometimes a third worse than last week's, which the audit would refuse.
TOLERANT = {"max_validation_lost": 1.0, "min_cosine": -1.0}
KEPT = 400  # releases; more than a year has
AROUND = 3  # days on each side of a day that its median has
RENEWED = 50  # days
LATER = 400  # days; what `retention` keeps by age is older then
LOOKED_AT = (1, 10, 50, 100, 150, 200, 250, 300, 350, 365)


def deliver(raw: Path, day: int) -> None:
    """The files of a day; day 0 is the first load. A new product a week, and each day a correction of an order."""
    start = OPENED + timedelta(days=60 + day)
    if day == 0:
        write_products(raw / "products.csv", 0, PRODUCTS, OPENED, 1)
        write_orders(raw / "orders" / "first.csv", 0, FIRST_ORDERS, OPENED, 60 * 24, PRODUCTS, 2, CUSTOMERS)
        return
    products = PRODUCTS + day // 7
    if day % 7 == 0:
        write_products(raw / f"products-{day:03}.csv", products - 1, 1, start, day)
    number = FIRST_ORDERS + ORDERS_A_DAY * day
    write_orders(raw / "orders" / f"{day:03}.csv", number, ORDERS_A_DAY, start, 24, products, 1000 + day, CUSTOMERS)
    earlier = number - ORDERS_A_DAY
    write_orders(raw / "orders" / f"{day:03}-again.csv", earlier, 1, start, 24, products, 2000 + day, CUSTOMERS)


def released_hash(workspace: Workspace, as_of: datetime | None = None) -> str:
    """A hash of the vectors of the release in force, or of the one as of a time."""
    digest = hashlib.sha256()
    for table in ("user_features", "item_features"):
        rows = released_arrow(workspace, table, as_of=as_of)
        digest.update("".join(sorted(map(str, rows.drop(["release_id"]).to_pylist()))).encode())
    return digest.hexdigest()[:16]


def size(folder: Path) -> tuple[int, int]:
    """(bytes, files) of a folder, its locks and logs left out."""
    sizes = [
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in ("locks", "logs")
    ]
    return sum(sizes), len(sizes)


def run_command(*arguments: str, clock: tuple[str, ...] = ()) -> float:
    """Seconds of a learn-spark command in a process of its own, which must succeed; ``clock`` is put before it."""
    began = time.monotonic()
    # The other clock is that of the day, not of timers, nor of the times that files have.
    its_own = environment() | {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
    subprocess.run([*clock, *PROGRAM, *arguments], env=its_own, stdout=subprocess.DEVNULL, check=True)
    return round(time.monotonic() - began, 1)


def run_warm(warm: Warm, log: Path, *arguments: str) -> list[float]:
    """[wall seconds, CPU seconds] of a learn-spark command that is a fork of ``warm``; it must succeed."""
    began, worked = time.monotonic(), cpu_seconds()
    code = warm.start(list(arguments), log).wait()
    if code:
        raise SystemExit(f"learn-spark {' '.join(arguments)} ends with exit code {code}; see {log}")
    return [round(time.monotonic() - began, 1), round(cpu_seconds() - worked, 1)]


def live_a_day(day: int, folder: Path, config: Path, warm: Warm) -> dict[str, Any]:
    """The report of a day. A day that was begun before is run again: its files are the same."""
    deliver(folder / "raw", day)
    log, trains = folder / "output.log", day % 7 == 0
    log.write_bytes(b"")
    place = Workspace.open(str(folder / "workspace"))
    known = {run.run_id for run in all_runs(place)}
    run = run_warm(warm, log, "run", str(config), "--wait", "--set", f"pipeline.stages=[{WEEKLY if trains else DAILY}]")
    retained = None
    if trains:
        kept = ("--releases", str(KEPT), "--days", "0", "--delete")
        retained = run_warm(warm, log, "retain", "--config", str(config), *kept)
    total, files = size(folder / "workspace")
    seen = None
    if day in LOOKED_AT:
        stages = ("--set", f"pipeline.stages=[{DAILY}]")
        seen = {
            "status": run_command("status", "--config", str(config)),
            "resting run": run_command("run", str(config), *stages),
            "aged": aged(folder, config),
        }
    return {
        "day": day,
        "as of": read_release(place).as_of.isoformat(),
        "run": run,
        "retain": retained,
        "stages": {one.job: round(one.seconds, 2) for one in all_runs(place) if one.run_id not in known},
        "bytes": total,
        "files": files,
        "raw": size(folder / "raw")[0],
        "seconds": seen,
        "load": round(os.getloadavg()[0], 1),
        "hash": released_hash(place),
    }


def around(days: list[dict[str, Any]], day: int) -> dict[str, Any]:
    """Medians of the days around ``day`` that trained nothing, and the bytes on it."""
    near = [one for one in days if abs(one["day"] - day) <= AROUND and one["day"] % 7] or [days[day]]
    stages = sorted({name for one in near for name in one["stages"]})
    return {
        "wall": statistics.median(one["run"][0] for one in near),
        "cpu": statistics.median(one["run"][1] for one in near),
        "stages": {name: statistics.median(one["stages"].get(name, 0.0) for one in near) for name in stages},
        "load": statistics.median(one["load"] for one in near),
        "MB": round(days[day]["bytes"] / 1e6, 1),
        "files": days[day]["files"],
        "raw MB": round(days[day]["raw"] / 1e6, 2),
    }


def aged(folder: Path, config: Path) -> dict[str, float]:
    """MB and files that ``retain`` leaves of a copy of the workspace, with seven releases, ``LATER`` days from now.

    The command alone has that clock, by Debian's faketime: pages, settings of runs, logs and caches go by their age.
    """
    copy = folder / "aged"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder / "workspace", copy, ignore=shutil.ignore_patterns("locks", "logs"))
    later = ("faketime", "-f", f"+{LATER}d")
    kept = ("--releases", "7", "--days", "0", "--delete", "--set", f"workspace={copy}")
    run_command("retain", "--config", str(config), *kept, clock=later)
    total, files = size(copy)
    shutil.rmtree(copy)
    return {"MB": round(total / 1e6, 1), "files": files}


def main(arguments: list[str]) -> int:
    """1 where a release that is read as of its day has other vectors than on that day."""
    parser = argparse.ArgumentParser(prog="make bench-year", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="of the state; a second start goes on there")
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no day after so many")
    chosen = parser.parse_args(arguments)
    folder, began = chosen.folder.resolve(), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    results, encoder = folder / "days.jsonl", write_encoder(folder / "encoder")
    more = {"histories": {"max_length": 16, "rows_per_file": 16}, "release": TOLERANT}
    config = write_chaos_settings(folder / "shop.yaml", folder / "raw", str(folder / "workspace"), encoder, **more)
    days = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.exists() else []
    warm: Warm | None = None
    while len(days) <= chosen.days and time.monotonic() - began < 60 * chosen.minutes:
        if warm is None or len(days) % RENEWED == 0:
            if warm is not None:
                warm.stop()
            warm = Warm(config, [], folder / "warm.log")
        days.append(live_a_day(len(days), folder, config, warm))
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(days[-1]) + "\n")
        print(f"day {days[-1]['day']}: {days[-1]['run']}, {days[-1]['bytes']:,} bytes", file=sys.stderr, flush=True)
    if warm is not None:
        warm.stop()
    workspace, last = Workspace.existing(str(folder / "workspace")), len(days) - 1
    read = days[:: max(1, last // 20)]
    wrong = [
        one["day"] for one in read if released_hash(workspace, datetime.fromisoformat(one["as of"])) != one["hash"]
    ]
    figures = {f"day {day}": around(days, day) for day in sorted({min(10, last), min(100, last), last})}
    looked = {f"day {one['day']}": one["seconds"] for one in days if one["seconds"]}
    report = {"benchmark": "year", **figures, "looked": looked, "read as of": len(read), "wrong": wrong}
    print(json.dumps(report | {"aged": aged(folder, config)}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
