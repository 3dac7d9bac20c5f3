"""Point-in-time join: each event gets the features that were served at its time, never later ones."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import reduce
from typing import TYPE_CHECKING, Literal

import numpy as np

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import READABLE, LedgerRow, ledger, releases_in_force, states
from learn_spark.features.read import KEYS, workspace_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Clock = Literal["published", "as_of"]
ADDED = ("release_id", "user_embedding", "item_embedding")


def features_at(
    spark: SparkSession,
    events: DataFrame,
    *,
    clock: Clock = "published",
    workspace: Workspace | str | None = None,
    schema: str | None = None,
) -> DataFrame:
    """``events`` (columns user_id, item_id, event_time and any others) with release_id, user_embedding, item_embedding.

    With the clock ``published`` an event gets the release that was in force at its time: the newest one published
    before it and not withdrawn by then. With ``as_of`` it gets the readable release with the latest as-of time at or
    before it; this is for logs from before the first release (``learn-spark backfill``). All three columns are null for
    an event before every release; an embedding is null for a user or item that is not in the release. The result has
    one row per event.

    ``workspace``: as for ``read``; or ``schema``: the schema of a catalog that has its tables (spark_catalog.learn).

    Each release is read once. Raises LearnSparkError if a column is missing, or if an added column exists already;
    CatalogError if the catalog has no such tables.
    """
    from pyspark.sql import functions as F

    from learn_spark.core.tables import delta

    missing = {"user_id", "item_id", "event_time"} - set(events.columns)
    taken = set(ADDED) & set(events.columns)
    if missing or taken:
        fault = f"lacks the columns {sorted(missing)}" if missing else f"already has the columns {sorted(taken)}"
        raise LearnSparkError(f"features_at: the frame of events {fault}")
    where = workspace_of(spark, workspace, schema)
    intervals = intervals_of(ledger(where), clock)
    # A chain of conditions, one an interval in order of time: the last interval that begins before the event.
    at = F.col("event_time").cast("timestamp")
    interval = F.lit(-1)
    for number, (start, _) in enumerate(intervals):
        begins = F.timestamp_micros(F.lit(round(start.timestamp() * 1_000_000)))
        interval = F.when((at > begins) if clock == "published" else (at >= begins), number).otherwise(interval)
    placed = events.withColumn("_interval", interval)
    used = sorted(row["_interval"] for row in placed.select("_interval").distinct().collect())
    rows = {number: intervals[number][1] for number in used if number >= 0}
    released = {number: row for number, row in rows.items() if row is not None}
    name = F.lit(None).cast("string")
    for number, row in released.items():
        name = F.when(F.col("_interval") == number, row.release_id).otherwise(name)
    joined = placed.withColumn("release_id", name)
    for table, key in KEYS.items():
        column = table.replace("features", "embedding")
        versions = {row.release_id: row.version(table) for row in released.values()}
        parts = [
            delta.read(spark, where.table(table), version).select(
                F.lit(release).alias("release_id"), key, F.col("embedding").alias(column)
            )
            for release, version in versions.items()
        ]
        if parts:
            joined = joined.join(reduce(lambda a, b: a.unionByName(b), parts), ["release_id", key], "left")
        else:
            joined = joined.withColumn(column, F.lit(None).cast("array<float>"))
    return joined.select(*events.columns, *ADDED)


def releases_at(
    workspace: Workspace, micros: np.ndarray, clock: Clock = "published"
) -> tuple[list[LedgerRow], np.ndarray]:
    """``features_at`` for times ``micros`` [n] (microseconds since 1970), without Spark.

    Returns (rows of ``releases``, position [n] of each time's release in them, or -1 before every release).
    """
    intervals = intervals_of(ledger(workspace), clock)
    begins = np.array([round(start.timestamp() * 1_000_000) for start, _ in intervals], dtype=np.int64)
    last = np.searchsorted(begins, micros, side="left" if clock == "published" else "right") - 1
    reads = [number for number in np.unique(last).tolist() if number >= 0 and intervals[number][1] is not None]
    position = np.full(len(intervals) + 1, -1, dtype=np.int32)  # the last entry is for index -1: before every release
    position[reads] = np.arange(len(reads))
    return [row for number in reads if (row := intervals[number][1]) is not None], position[last]


def intervals_of(rows: list[LedgerRow], clock: Clock) -> list[tuple[datetime, LedgerRow | None]]:
    """(start, release or None) of each interval in order of time; an interval ends where the next one starts.

    Clocks of machines differ: a row of the ledger can have an earlier time than the row before it. The later row
    decides then, from its own time on: an interval that starts at or after the start of a later one is left out.
    """
    if clock == "as_of":
        released = [row for row in states(rows).values() if row.status in READABLE]
        newest = {row.as_of: row for row in sorted(released, key=lambda row: row.sequence)}
        return sorted(newest.items())
    if clock != "published":
        raise LearnSparkError(f"features_at: clock must be published or as_of, got {clock!r}")
    starts: list[tuple[datetime, LedgerRow | None]] = []
    for start, end, row in releases_in_force(rows):
        starts.append((start, row))
        if end is not None:
            starts.append((end, None))
    ordered: list[tuple[datetime, LedgerRow | None]] = []
    for interval in reversed(starts):
        if not ordered or interval[0] < ordered[-1][0]:
            ordered.append(interval)
    return [(when.astimezone(UTC), release) for when, release in reversed(ordered)]
