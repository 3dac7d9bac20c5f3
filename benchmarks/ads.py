"""How does the memory of the ads ranker grow with the number of exposures?

    make bench-ads                                        1 M and 6 M exposures
    make bench-ads ARGS="--exposures 1e6 4e6 --checkouts . ../before"

Exposures of 20,000 users and 5,000 items are generated, a tenth of them converted, with one release of 16 numbers a
vector, and rank_ads is run as the command that a user gives: base, learn and gbdt, one seed, one epoch. Of each of
--checkouts (folders with a version of this repository) the same tables are ranked. Seconds are those of the clock;
memory is the peak resident set of Python's processes and of Java's.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from benchmarks.scale import measure
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import append_rows, append_table
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import LedgerRow

USERS, ITEMS, DIMS, FILE_ROWS = 20_000, 5_000, 16, 500_000
FIRST = 1_700_000_000_000_000
SETTINGS = """\
extends: ads.yaml
workspace: {folder}/workspace
encoder: {{model: {folder}/llm}}
ranking:
  variants: [base, learn, gbdt]
  seeds: [1]
  epochs: 1
  batch_size: 4096
  threads: 1
  bootstrap_samples: 20
  trees: {{rounds: 20}}
quality:
  rules:
    exposures.refused_share: {{most: null}}
    interactions.refused_share: {{most: null}}
    interactions.known_items: {{most: null}}
"""


def generate(workspace: Workspace, exposures: int) -> None:
    """Exposures a second apart, a file of 500,000 rows at a time; some interactions; one release."""
    chance = np.random.default_rng(0)
    as_of = datetime.fromtimestamp(FIRST / 1e6 - 1, UTC)
    outputs = {}
    for table, kind, count in (("user_features", "u", USERS), ("item_features", "i", ITEMS)):
        vectors = chance.standard_normal((count, DIMS), dtype=np.float32)
        columns: dict[str, Any] = {
            f"{table.split('_')[0]}_id": [f"{kind}{n:08}" for n in range(count)],
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIMS),
            "release_id": ["r"] * count,
            "as_of": [as_of] * count,
            "fingerprint": [1] * count,
        }
        write(workspace, table, columns)
        outputs[table] = str(current_version(workspace.table(table)))
    row = LedgerRow("r", "released", "m", "1", "e", {}, outputs, None, {}, as_of, "r", None, 1, as_of)
    append_rows(workspace.table("releases"), contract("releases"), [asdict(row)])
    write(workspace, "items", {"item_id": [f"i{n:08}" for n in range(ITEMS)]})
    events = {
        "event_id": [f"e{n}" for n in range(10_000)],
        "user_id": [f"u{n % USERS:08}" for n in range(10_000)],
        "item_id": [f"i{n % 500:08}" for n in range(10_000)],
        "event_type": ["purchase"] * 10_000,
        "event_time": [as_of.replace(microsecond=n) for n in range(10_000)],
        "event_date": [as_of.date()] * 10_000,
    }
    write(workspace, "interactions", events)
    for start in range(0, exposures, FILE_ROWS):
        n = min(FILE_ROWS, exposures - start)
        number = np.arange(start, start + n)
        columns = {
            "event_id": [f"{number:032x}" for number in number],
            "user_id": [f"u{user:08}" for user in chance.integers(0, USERS, n)],
            "item_id": [f"i{item:08}" for item in chance.zipf(1.3, n) % ITEMS],
            "event_time": pa.array(FIRST + number * 1_000_000).cast(pa.timestamp("us", "UTC")),
            "position": chance.integers(1, 9, n),
            "converted": chance.random(n) < 0.1,
            "weight": np.ones(n),
        }
        write(workspace, "exposures", columns)


def write(workspace: Workspace, table: str, columns: dict[str, Any]) -> None:
    """Append rows to a table; other columns are null."""
    schema = contract(table).arrow_schema()
    rows = len(next(iter(columns.values())))
    arrays = [pa.array(columns[f.name]).cast(f.type) if f.name in columns else pa.nulls(rows, f.type) for f in schema]
    data = pa.Table.from_arrays(arrays, schema=schema)
    if table.endswith("_features"):
        write_deltalake(workspace.table(table), data, mode="append")
    else:
        append_table(workspace.table(table), contract(table), data)


def main(arguments: list[str]) -> int:
    """Run all sizes, print one line of JSON each."""
    parser = argparse.ArgumentParser(prog="make bench-ads", description=__doc__)
    parser.add_argument("--exposures", type=float, nargs="+", default=[1e6, 6e6])
    parser.add_argument("--checkouts", nargs="+", default=["."])
    parser.add_argument("--memory", type=float, default=12.0, help="GiB of data that a process may have")
    options = parser.parse_args(arguments)
    for exposures in map(int, options.exposures):
        with tempfile.TemporaryDirectory(dir="var" if Path("var").is_dir() else None) as folder:
            (Path(folder) / "llm").mkdir()
            config = Path(folder) / "bench.yaml"
            config.write_text(SETTINGS.format(folder=folder), encoding="utf-8")
            generate(Workspace.open(f"{folder}/first"), exposures)
            for checkout in options.checkouts:
                shutil.copytree(f"{folder}/first", f"{folder}/workspace")
                command = ["env", f"PYTHONPATH={Path(checkout).resolve()}"]
                command += [str(Path(sys.executable).parent / "learn-spark"), "rank_ads", "--config", str(config)]
                row = {"checkout": checkout, "exposures": exposures, **measure(command, options.memory)}
                print(json.dumps(row), flush=True)
                shutil.rmtree(f"{folder}/workspace")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
