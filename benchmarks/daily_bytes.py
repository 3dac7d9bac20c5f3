"""Which files does a day's merge into user_histories touch, by the order in which users are laid out in files?

    make bench-daily_bytes                                       200,000 users in 40 files, three days of 1 % of them
    make bench-daily_bytes ARGS="--users 3.125e6 --files 48 --count"   the same by counting alone, without tables

Histories of generated users are written in several orders, and each day's users are replaced by the merge that the
stage uses. ``--returning`` of a day's users were active in the week before, the others are anybody. What is printed is
of the commits' own metrics: files and bytes removed and added, and rows that were copied though nobody changed them.
A merge reads the removed files whole, and of all others user_id and chunk (``key_bytes``).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from learn_spark.core.settings.platform import SparkSettings
from learn_spark.core.tables.session import start_session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

WIDTH = 64
# Order of users, and how many times more files than --files.
LAYOUTS = {
    "hash": ("xxhash64(user_id)", 1),
    "hash, files of a sixteenth": ("xxhash64(user_id)", 16),
    "user_id": ("user_id", 1),
    "recency": ("last", 1),
    "hash, deletion vectors": ("xxhash64(user_id)", 1),
}


def main(arguments: list[str]) -> int:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(prog="make bench-daily_bytes", description=__doc__)
    parser.add_argument("--users", type=float, default=2e5)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--days", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--returning", type=float, default=0.7)
    parser.add_argument("--count", action="store_true", help="count the files with active users, without tables")
    chosen = parser.parse_args(arguments)
    figures: dict[str, Any] = {"benchmark": "daily_bytes", **vars(chosen), "width": WIDTH, "layouts": {}}
    if chosen.count:
        figures["layouts"] = {name: count(name, chosen) for name in LAYOUTS if "vectors" not in name}
        print(json.dumps(figures))
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-daily-bytes-") as root:
        settings = SparkSettings(master="local[*]", driver_memory="2g", shuffle_partitions=8)
        session = start_session(settings, app="bench-daily-bytes", log_file=Path(root) / "spark.log")
        for name in LAYOUTS:
            figures["layouts"][name] = measure(session, Path(root) / str(len(figures["layouts"])), name, chosen)
            print(name, json.dumps(figures["layouts"][name]), file=sys.stderr, flush=True)
        session.stop()
    print(json.dumps(figures))
    return 0


class Activity:
    """Days since every user's last event, and whose events arrive on each day."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chance, self.users, self.chosen = np.random.default_rng(1), int(chosen.users), chosen
        # Half of the users were not seen for two months.
        self.last = self.chance.exponential(90.0, self.users)

    def days(self) -> Iterator[np.ndarray]:
        """The active users of each day [active]."""
        for _ in range(self.chosen.days):
            self.last += 1
            n = int(self.chosen.share * self.users)
            recent = np.flatnonzero(self.last <= 8)
            returning = self.chance.choice(recent, min(len(recent), int(self.chosen.returning * n)), replace=False)
            others = self.chance.choice(self.users, n - len(returning), replace=False)
            active = np.unique(np.concatenate([returning, others]))
            self.last[active] = 0
            yield active


def count(layout: str, chosen: argparse.Namespace) -> list[dict[str, int]]:
    """Of each day the files with active users, of how many; a day's rows are together in a file of their own after."""
    activity, (order, smaller) = Activity(chosen), LAYOUTS[layout]
    files = chosen.files * smaller
    place = np.argsort(-activity.last).argsort() if order == "last" else activity.chance.permutation(activity.users)
    file, days = place * files // activity.users, []
    for active in activity.days():
        touched = np.unique(file[active])
        days.append({"files": len(np.unique(file)), "touched": len(touched), "rows": int(np.isin(file, touched).sum())})
        # Spark writes the rows of the touched files as so many new ones, by a hash of the user.
        rewritten = np.isin(file, touched)
        file[rewritten] = file.max() + 1 + activity.chance.integers(0, len(touched), int(rewritten.sum()))
    return days


def measure(session: SparkSession, folder: Path, layout: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """Figures of the table, and of every day's commit."""
    from pyspark.sql import functions as F

    activity = Activity(chosen)
    order, smaller = LAYOUTS[layout]
    frame = session.createDataFrame(pa.table({"id": np.arange(activity.users), "last": -activity.last}))
    rows = histories(frame).repartitionByRange(chosen.files * smaller, F.expr(order)).drop("last")
    vectors = str("deletion vectors" in layout).lower()
    writer = rows.write.format("delta").option("delta.enableDeletionVectors", vectors)
    writer.save(f"file:{folder}")
    files = list(folder.glob("*.parquet"))
    figures = {"files": len(files), "bytes": sum(file.stat().st_size for file in files), "key_bytes": key_bytes(files)}
    days = []
    for active in activity.days():
        given = session.createDataFrame(pa.table({"id": active, "last": np.zeros(len(active))}))
        days.append(merge(session, folder, given))
    return figures | {"days": days}


def histories(users: DataFrame) -> DataFrame:
    """Rows like those of user_histories, with random values."""
    from pyspark.sql import functions as F

    number = F.sequence(F.lit(1), F.lit(WIDTH))
    values = F.transform(number, lambda n: F.pmod(F.xxhash64("id", "last", n), F.lit(200_000)).cast("int"))
    times = F.transform(values, lambda n: F.lit(1_600_000_000_000_000) + n.cast("long") * 1_000_003)
    name = F.concat(F.lit("user-"), F.col("id"))
    return users.select(
        name.alias("user_id"), F.lit(0).alias("chunk"), values.alias("item_index"), times.alias("event_time"), "last"
    )


def merge(session: SparkSession, folder: Path, active: DataFrame) -> dict[str, int]:
    """The commit's metrics after the rows of the active users were replaced."""
    from delta.tables import DeltaTable

    table = DeltaTable.forPath(session, f"file:{folder}")
    new = histories(active).drop("last")
    merging = table.alias("t").merge(new.alias("s"), "t.user_id = s.user_id AND t.chunk = s.chunk")
    merging.whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()
    row = table.history(1).first()
    assert row is not None
    metrics = row["operationMetrics"]
    names = ("FilesRemoved", "FilesAdded", "BytesRemoved", "BytesAdded", "RowsUpdated", "RowsCopied")
    return {name: int(metrics.get(f"numTarget{name}", 0)) for name in names}


def key_bytes(files: list[Path]) -> int:
    """Bytes of the columns user_id and chunk."""
    total = 0
    for file in files:
        footer = pq.read_metadata(file)
        for group in range(footer.num_row_groups):
            columns = [footer.row_group(group).column(n) for n in range(footer.num_columns)]
            total += sum(c.total_compressed_size for c in columns if c.path_in_schema in ("user_id", "chunk"))
    return total


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
