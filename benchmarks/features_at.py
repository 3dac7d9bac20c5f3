"""What does the point-in-time join cost with many releases?

    make bench-features_at ARGS="--releases 300"
    make bench-features_at ARGS="--releases 300 --earlier ../earlier"      beside another checkout

A workspace of 24 items and 30 users, of which each release changes two users, and every tenth one item; an event of
every user at every release, by the clock ``published``. Each checkout is a process of its own; its session has been
used before, so that no start of Spark is measured. The last line is JSON: seconds, Spark jobs, leaves of the plan.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
START = datetime(2024, 1, 1, tzinfo=UTC)
USERS, ITEMS, WIDTH = 30, 24, 32


def write_releases(place: str, count: int) -> None:
    """Write the feature tables, a commit a change, and the ledger."""
    from learn_spark.core.tables.contracts import contract
    from learn_spark.core.tables.log import append_rows
    from learn_spark.core.tables.workspace import Workspace
    from learn_spark.features.ledger import LedgerRow

    workspace, rows = Workspace.open(place), []
    versions = {"user_features": 0, "item_features": 0}
    for number in range(count):
        changed = {
            "user_features": range(USERS) if number == 0 else [number % USERS, (number * 7 + 1) % USERS],
            "item_features": range(ITEMS) if number == 0 else [number % ITEMS] if number % 10 == 0 else [],
        }
        for table, entities in changed.items():
            if entities:
                versions[table] = _commit(workspace.table(table), contract(table), list(entities), number)
        outputs = {table: str(version) for table, version in versions.items()}
        at = START + timedelta(days=number)
        constants: dict[str, Any] = {"model_id": "m", "code_version": "c", "encoder_key": "e", "gate_results": None}
        row = LedgerRow(
            **constants, release_id=f"r{number}", status="released", inputs={}, outputs=outputs, metrics={},
            as_of=at, run_id="r", note=None, sequence=number + 1, written_at=at,
        )  # fmt: skip
        rows.append(asdict(row))
    append_rows(workspace.table("releases"), contract("releases"), rows)


def _commit(path: str, contract: Any, entities: list[int], number: int) -> int:
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake

    from learn_spark.core.tables.create import create_table

    create_table(path, contract.model_copy(update={"constraints": {}}))
    key, names = contract.key[0], [f"e{entity}" for entity in entities]
    constants = {"release_id": f"r{number}", "as_of": START, "fingerprint": number}
    rows = [{key: name, "embedding": [float(number)] * WIDTH, **constants} for name in names]
    where = f"{key} IN ({', '.join(repr(name) for name in names)})"
    table = DeltaTable(str(path))
    write_deltalake(table, pa.Table.from_pylist(rows, contract.arrow_schema()), mode="overwrite", predicate=where)
    return table.version()


def join_here(place: str, count: int) -> None:
    """Join in this process; print one line of JSON."""
    from learn_spark.core.settings.platform import SparkSettings
    from learn_spark.core.tables.session import start_session
    from learn_spark.features import features_at

    settings = SparkSettings(master="local[2]", driver_memory="4g", shuffle_partitions=4)
    spark = start_session(settings, app="features_at", log_file=Path(place) / "spark.log")
    events = [
        (f"e{user}", f"e{(user + number) % ITEMS}", START + timedelta(days=number, hours=1))
        for number in range(count)
        for user in range(USERS)
    ]
    columns = "user_id string, item_id string, event_time timestamp"
    features_at(spark, spark.createDataFrame(events[:USERS], columns), workspace=place).collect()
    context = spark.sparkContext
    context.setJobGroup("measured", "measured")
    start = time.perf_counter()
    joined = features_at(spark, spark.createDataFrame(events, columns), workspace=place)
    rows = joined.collect()
    seconds = time.perf_counter() - start
    assert len(rows) == len(events)
    assert all(row.user_embedding and row.item_embedding for row in rows)
    leaves = joined._jdf.queryExecution().optimizedPlan().collectLeaves().size()
    jobs = len(context.statusTracker().getJobIdsForGroup("measured"))
    spark.stop()
    print(json.dumps({"releases": count, "seconds": round(seconds, 1), "jobs": jobs, "leaves": leaves}))


def main() -> None:
    """Write one workspace, and join in it with each checkout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--releases", type=int, default=300)
    parser.add_argument("--earlier", help="a checkout to measure beside this one")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        join_here(given.here, given.releases)
        return
    checkouts = {"now": ROOT} | ({"earlier": Path(given.earlier).resolve()} if given.earlier else {})
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        write_releases(folder, given.releases)
        for name, checkout in checkouts.items():
            command = [sys.executable, __file__, "--here", folder, "--releases", str(given.releases)]
            ran = subprocess.run(
                command, env=os.environ | {"PYTHONPATH": str(checkout)}, stdout=subprocess.PIPE, text=True, check=True
            )
            results[name] = json.loads(ran.stdout.splitlines()[-1])
    print(json.dumps(results))


if __name__ == "__main__":
    main()
