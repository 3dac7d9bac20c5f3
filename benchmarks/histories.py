"""How fast are histories assembled, in how much memory, against sort_array(collect_list(...))?

    make bench-histories                                    10 and 50 million events
    make bench-histories ARGS="--events 1e6 --repeats 1"   a quick look

Generates a skewed log (Zipf items; ten users hold a tenth of all events), then assembles it by ours and by the plain
way, alternating, each run in a process of its own; what is timed is from the log in Parquet to padded rows that are
computed and thrown away. Then ours once more over a log whose heaviest user holds a third of it: memory must not grow.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.clock import cpu_seconds
from learn_spark.core.settings.histories import HistoriesSettings, LastEventsHistoriesSettings
from learn_spark.core.settings.platform import SparkSettings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

CAP = 256
ITEMS = 200_000
MEMORY = "3g"


def main(arguments: list[str]) -> int:
    """Run all, print one line of JSON."""
    parser = argparse.ArgumentParser(prog="make bench-histories", description=__doc__)
    parser.add_argument("--events", default="1e7,5e7")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--part", choices=("generate", "ours", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--heavy", type=float, default=0.0, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.part:
        return _part(chosen.part, chosen.folder, int(chosen.size or 0), chosen.heavy)
    sizes = [int(float(size)) for size in chosen.events.split(",")]
    figures: dict[str, Any] = {"benchmark": "histories", "cores": os.cpu_count(), "cap": CAP, "sizes": {}}
    with tempfile.TemporaryDirectory(prefix="bench-histories-") as root:
        for size in sizes:
            folder = Path(root) / str(size)
            made = _run("generate", folder, size)
            runs: dict[str, list[dict[str, float]]] = {"ours": [], "plain": []}
            for _ in range(chosen.repeats if size <= 20_000_000 else 1):
                for way in runs:
                    runs[way].append(_run(way, folder, size))
            seconds = {way: statistics.median(run["seconds"] for run in done) for way, done in runs.items()}
            cpu = {way: statistics.median(run["cpu"] for run in done) for way, done in runs.items()}
            figures["sizes"][size] = {
                "users": made["users"],
                "heaviest_user_events": made["heaviest"],
                **{f"{way}_events_per_s": round(size / seconds[way]) for way in runs},
                "ours_over_plain": round(seconds["plain"] / seconds["ours"], 2),
                "ours_over_plain_by_cpu": round(cpu["plain"] / cpu["ours"], 2),
                **{f"{way}_cpu_s": round(cpu[way], 1) for way in runs},
                **{
                    f"{way}_peak_{what}_mb": round(max(run[what] for run in done))
                    for way, done in runs.items()
                    for what in ("jvm", "worker")
                },
            }
            print(json.dumps(figures["sizes"][size]), file=sys.stderr, flush=True)
            if size == sizes[0]:
                heavy = Path(root) / "heavy"
                made = _run("generate", heavy, size, heavy=1 / 3)
                run = _run("ours", heavy, size)
                figures["one_user_a_third"] = {
                    "heaviest_user_events": made["heaviest"],
                    "events_per_s": round(size / run["seconds"]),
                    "peak_jvm_mb": round(run["jvm"]),
                    "peak_worker_mb": round(run["worker"]),
                }
        if len(sizes) > 1:
            first, last = (figures["sizes"][size]["ours_events_per_s"] for size in (sizes[0], sizes[-1]))
            figures["seconds_per_event_last_over_first"] = round(first / last, 2)
    print(json.dumps(figures))
    return 0


def _run(part: str, folder: Path, size: int, heavy: float = 0.0) -> dict[str, float]:
    """The part in a process of its own, watched: its own figures, and the largest JVM and Python worker seen (MB)."""
    command = [sys.executable, "-m", "benchmarks.histories", "--part", part, "--folder", str(folder)]
    command += ["--size", str(size), "--heavy", str(heavy)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peaks = {"jvm": 0.0, "worker": 0.0, "other": 0.0}
    watcher = threading.Thread(target=_watch, args=(process, peaks), daemon=True)
    watcher.start()
    out, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{part} failed: {errors[-3000:]}")
    found: dict[str, float] = json.loads(out.strip().splitlines()[-1])
    print(f"{part} {size:,}: {found}", file=sys.stderr, flush=True)
    return {**found, **peaks}


def _watch(process: subprocess.Popen[str], peaks: dict[str, float]) -> None:
    while process.poll() is None:
        family = {process.pid}
        table = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    table.append((int(entry.name), int(fields[1]), int(fields[21]), (entry / "comm").read_text()))
                except (OSError, IndexError, ValueError):
                    continue
        for pid, parent, pages, name in sorted(table):
            if parent in family:
                family.add(pid)
                kind = "jvm" if name.startswith("java") else "worker" if name.startswith("python") else "other"
                peaks[kind] = max(peaks[kind], pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
        time.sleep(0.2)


def _part(part: str, folder: Path, size: int, heavy: float) -> int:
    from learn_spark.core.tables.session import start_session

    folder.mkdir(parents=True, exist_ok=True)
    settings = SparkSettings(master="local[*]", driver_memory=MEMORY, shuffle_partitions=max(8, size // 1_250_000))
    session = start_session(settings, app="bench-histories", log_file=folder / "spark.log")
    if part == "generate":
        print(json.dumps(generate(session, folder, size, heavy)))
        return 0
    from learn_spark.data.histories.events import indexed_events, usable_events
    from learn_spark.data.histories.rows import sorted_aggregates

    wanted = LastEventsHistoriesSettings(max_length=CAP)
    log = session.read.parquet(f"file:{folder / 'log'}")
    index = session.read.parquet(f"file:{folder / 'index'}")
    started, cpu = time.monotonic(), cpu_seconds()
    usable = usable_events(log, wanted)
    events = indexed_events(usable, index, wanted)
    with sorted_aggregates(session) if part == "ours" else nullcontext():
        rows = _ours(usable, events, wanted) if part == "ours" else _plain(events)
        rows.write.format("noop").mode("overwrite").save()
    print(json.dumps({"seconds": time.monotonic() - started, "cpu": cpu_seconds() - cpu}))
    session.stop()
    return 0


def _ours(usable: DataFrame, events: DataFrame, wanted: HistoriesSettings) -> DataFrame:
    from learn_spark.data.histories.assemble import Size, assemble

    return assemble(events, wanted, Size.of(usable))


def _plain(events: DataFrame) -> DataFrame:
    """What one would write first: everything of a user in one row, sorted, cut, padded."""
    from pyspark.sql import functions as F

    event = F.struct("time", "event_id", "item_index", F.lit(1.0).alias("weight"))
    whole = events.groupBy("user_id").agg(F.sort_array(F.collect_list(event)).alias("events"))
    size = F.size("events")
    kept = whole.select(
        "user_id",
        F.slice("events", F.greatest(F.lit(1), size - CAP + 1), CAP).alias("events"),
        size.alias("n_events"),
    )

    def padded(name: str, kind: str) -> Any:
        return F.concat(F.col(f"events.{name}"), F.array_repeat(F.lit(0).cast(kind), CAP - F.size("events")))

    return kept.select(
        "user_id",
        padded("item_index", "int").alias("item_index"),
        padded("time", "bigint").alias("event_time"),
        padded("weight", "float").alias("weight"),
        F.size("events").alias("length"),
        "n_events",
    )


def generate(session: SparkSession, folder: Path, size: int, heavy: float) -> dict[str, float]:
    from pyspark.sql import functions as F

    users = max(20, size // 40)
    # Ten users hold a tenth of the log between them, in falling shares.
    many = F.floor(F.pow(F.rand(2), F.lit(2.0)) * 10)
    user = F.when(F.rand(1) < 0.1, many).otherwise(10 + F.floor(F.rand(3) * users))
    user = F.when(F.rand(6) < heavy, F.lit(-1)).otherwise(user).cast("bigint")
    item = F.least(F.floor(F.exp(F.rand(4) * F.log(F.lit(float(ITEMS))))), F.lit(ITEMS)).cast("bigint")
    second = F.lit(1_600_000_000) + F.floor(F.rand(5) * 30_000_000)
    log = session.range(size).select(
        F.substring(F.sha2(F.col("id").cast("string"), 256), 1, 32).alias("event_id"),
        F.concat(F.lit("user-"), user).alias("user_id"),
        F.concat(F.lit("item-"), item).alias("item_id"),
        F.lit("click").alias("event_type"),
        F.lit(1.0).alias("value"),
        F.timestamp_micros((second * 1_000_000).cast("bigint")).alias("event_time"),
    )
    log.write.mode("overwrite").parquet(f"file:{folder / 'log'}")
    numbers = session.range(1, ITEMS + 1)
    index = numbers.select(
        F.concat(F.lit("item-"), F.col("id")).alias("item_id"), F.col("id").cast("int").alias("item_index")
    )
    index.write.mode("overwrite").parquet(f"file:{folder / 'index'}")
    counts = session.read.parquet(f"file:{folder / 'log'}").groupBy("user_id").count()
    row = counts.agg(F.count("*"), F.max("count")).first()
    assert row is not None
    return {"users": row[0], "heaviest": row[1]}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
