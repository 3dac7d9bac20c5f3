"""What does the point-in-time join cost beside a plain window join?

    make bench-window_join ARGS="--events 1000000 --releases 100 --users 20000 --items 2000"

Each release changes a hundredth of the users and items. Events are spread over the time of the releases. ``ours`` is
``features_at``, which finds the release of each event by the ledger and the vectors by the tables' change feeds.
``plain`` is what one would write for a table of (id, vector, valid from), which it is given ready: the union with the
events, and the last vector before each event by a window over each id; once for users, once for items. Both end in the
sums of what they found, which must agree. Each is a process of its own, and they take turns. The last line is JSON:
seconds of each turn, without the start of Spark, and the ratio of the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

START = datetime(2024, 1, 1, tzinfo=UTC)
WIDTH, CHANGED = 32, 0.01
KEYS = {"user_features": "user_id", "item_features": "item_id"}


def write_releases(folder: Path, count: int, sizes: dict[str, int]) -> None:
    """Write the feature tables, a commit a release, with the ledger; and the same as files of (id, vector, from)."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from deltalake import DeltaTable, write_deltalake

    from learn_spark.core.tables.contracts import contract
    from learn_spark.core.tables.create import create_table
    from learn_spark.core.tables.log import append_rows
    from learn_spark.core.tables.workspace import Workspace
    from learn_spark.features.ledger import LedgerRow

    workspace, chance, ledger = Workspace.open(str(folder / "workspace")), np.random.default_rng(1), []
    for number in range(count):
        at, outputs = START + timedelta(days=number), {}
        for table, key in KEYS.items():
            size, path, described = sizes[table], workspace.table(table), contract(table)
            changed = (
                np.arange(size)
                if number == 0
                else np.union1d([number % size], np.flatnonzero(chance.random(size) < CHANGED))
            )
            ids = [f"e{one}" for one in changed]
            vectors = chance.standard_normal((len(ids), WIDTH), dtype=np.float32)
            rows = pa.table(
                {
                    key: ids,
                    "embedding": pa.array(list(vectors), pa.list_(pa.float32())),
                    "release_id": [f"r{number}"] * len(ids),
                    "as_of": pa.array([at] * len(ids), pa.timestamp("us", "UTC")),
                    "fingerprint": np.full(len(ids), number),
                }
            ).cast(described.arrow_schema())
            if number == 0:
                create_table(path, described.model_copy(update={"constraints": {}}))
                write_deltalake(DeltaTable(str(path)), rows, mode="append")
            else:
                where = f"{key} IN ({', '.join(map(repr, ids))})"
                write_deltalake(DeltaTable(str(path)), rows, mode="overwrite", predicate=where)
            outputs[table] = str(DeltaTable(str(path)).version())
            plain = pa.table({"id": ids, "vector": rows["embedding"], "at": rows["as_of"]})
            (folder / table).mkdir(exist_ok=True)
            pq.write_table(plain, folder / table / f"{number:04}.parquet")
        row = LedgerRow(
            release_id=f"r{number}", status="released", model_id="m", code_version="c", encoder_key="e", inputs={},
            outputs=outputs, gate_results=None, metrics={}, as_of=at, run_id="r", note=None, sequence=number + 1,
            written_at=at,
        )  # fmt: skip
        ledger.append(asdict(row))
    append_rows(workspace.table("releases"), contract("releases"), ledger)


def join_here(folder: Path, way: str, events: int, days: int, sizes: dict[str, int]) -> dict[str, Any]:
    """Join in this process."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    from learn_spark.core.settings.platform import SparkSettings
    from learn_spark.core.tables.session import start_session
    from learn_spark.features import features_at

    settings = SparkSettings(master="local[2]", driver_memory="3g", shuffle_partitions=8)
    spark = start_session(settings, app="window_join", log_file=folder / "spark.log")
    micros = F.lit(round(START.timestamp() * 1e6)) + F.xxhash64(F.lit(3), "id") % F.lit(days * 43_200_000_000)
    asked = spark.range(events).select(
        F.concat(F.lit("e"), F.abs(F.xxhash64(F.lit(1), "id")) % sizes["user_features"]).alias("user_id"),
        F.concat(F.lit("e"), F.abs(F.xxhash64(F.lit(2), "id")) % sizes["item_features"]).alias("item_id"),
        F.timestamp_micros(micros + days * 43_200_000_000 + 1).alias("event_time"),
    )

    def ours(rows: Any) -> Any:
        return features_at(spark, rows, workspace=str(folder / "workspace"))

    def plain(rows: Any) -> Any:
        for table, key in KEYS.items():
            column = table.replace("features", "embedding")
            known = spark.read.parquet(str(folder / table)).select(
                F.col("id").alias(key), "at", F.col("vector").alias(column)
            )
            # A release of the time of an event comes after it.
            both = rows.withColumn("at", F.col("event_time")).unionByName(known, allowMissingColumns=True)
            order = Window.partitionBy(key).orderBy("at", F.col("event_time").isNull())
            last = F.last(column, ignorenulls=True).over(order.rowsBetween(Window.unboundedPreceding, 0))
            rows = both.withColumn(column, last).where("event_time is not null").drop("at")
        return rows

    joined = {"ours": ours, "plain": plain}[way]
    sums = [F.count("*").alias("rows")]
    for name in ("user_embedding", "item_embedding"):
        sums += [F.count(name).alias(f"{name}s"), F.sum(F.col(name)[0].cast("double")).alias(name)]
    joined(asked.limit(100)).agg(*sums).collect()
    began = time.perf_counter()
    found = joined(asked).agg(*sums).collect()[0].asDict()
    seconds = time.perf_counter() - began
    spark.stop()
    return {"seconds": round(seconds, 1), "found": {name: round(value or 0, 3) for name, value in found.items()}}


def main(arguments: list[str]) -> int:
    """1 where the two ways found something else."""
    parser = argparse.ArgumentParser(prog="make bench-window_join", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--releases", type=int, default=100)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--here", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    sizes = {"user_features": chosen.users, "item_features": chosen.items}
    if chosen.here:
        print(json.dumps(join_here(Path(chosen.here[0]), chosen.here[1], chosen.events, chosen.releases, sizes)))
        return 0
    reports: dict[str, list[dict[str, Any]]] = {"ours": [], "plain": []}
    with tempfile.TemporaryDirectory(prefix="bench-window-join-") as folder:
        write_releases(Path(folder), chosen.releases, sizes)
        for _ in range(chosen.repeats):
            for way, done in reports.items():
                command = [sys.executable, "-m", "benchmarks.window_join", *arguments, "--here", folder, way]
                ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                done.append(json.loads(ran.stdout.splitlines()[-1]))
                print(way, done[-1], file=sys.stderr, flush=True)
    seconds = {way: [one["seconds"] for one in done] for way, done in reports.items()}
    ratio = statistics.median(seconds["ours"]) / statistics.median(seconds["plain"])
    sizes |= {"events": chosen.events, "releases": chosen.releases}
    print(json.dumps({"benchmark": "window_join", **sizes, **seconds, "ours / plain": round(ratio, 2)}))
    return int(any(one["found"] != reports["ours"][0]["found"] for done in reports.values() for one in done))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
