"""Point-in-time join: each event gets the features that were served at its time, never later ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import READABLE, LedgerRow, ledger, releases_in_force, states
from learn_spark.features.read import KEYS, workspace_of
from learn_spark.features.validity import require_files, rows_with_validity

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Clock = Literal["published", "as_of"]
ADDED = ("release_id", "user_embedding", "item_embedding")
_VERSIONS = tuple(f"_{table}" for table in KEYS)
_INTERNAL = ("_bucket", "_micros", "_start", "_end", "_interval", "_from", "_to", *_VERSIONS)
_END = (1 << 63) - 1  # of the last interval, in microseconds


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

    However many releases there are, each table is read once: the rows of its oldest version that an event needs, and
    the changes from it to the newest one (``validity.rows_with_validity``). An event is compared with the versions of
    its user and of its item.

    Raises LearnSparkError if a column is missing, if an added column exists already, if an event needs a release whose
    files are deleted, or if the change data feed cannot be read; CatalogError if the catalog has no such tables.
    """
    from pyspark.sql import functions as F

    check_events(events.columns, _INTERNAL)
    where = workspace_of(spark, workspace, schema)
    intervals = intervals_of(ledger(where), clock)
    joined = with_interval(spark, events, intervals, clock)
    used = [row["_interval"] for row in joined.select("_interval").distinct().collect()]
    needed = [row for number in used if number is not None and (row := intervals[number][1]) is not None]
    for table, key in KEYS.items():
        column = table.replace("features", "embedding")
        if not needed:
            joined = joined.withColumn(column, F.lit(None).cast("array<float>"))
            continue
        require_files(where, table, needed)
        versions = [row.version(table) for row in needed]
        rows = rows_with_validity(spark, where.table(table), key, min(versions), max(versions), column)
        at = F.col(f"e._{table}")
        valid = (F.col(f"e.{key}") == F.col(f"v.{key}")) & (at >= F.col("v._from")) & (at < F.col("v._to"))
        joined = joined.alias("e").join(rows.alias("v"), valid, "left").select("e.*", f"v.{column}")
    return joined.select(*[F.col(f"`{name}`") for name in events.columns], *ADDED)


def check_events(columns: Sequence[str], reserved: Sequence[str] = ()) -> None:
    """Raise LearnSparkError unless events with these columns can be joined; ``reserved``: names that they cannot
    have.
    """
    missing = {"user_id", "item_id", "event_time"} - set(columns)
    taken = {*ADDED, *reserved} & set(columns)
    if missing or taken:
        fault = f"lacks the columns {sorted(missing)}" if missing else f"already has the columns {sorted(taken)}"
        raise LearnSparkError(f"features_at: the frame of events {fault}")


def with_interval(
    spark: SparkSession, events: DataFrame, intervals: list[tuple[datetime, LedgerRow | None]], clock: Clock
) -> DataFrame:
    """``events`` with _interval (position in ``intervals``), release_id and the versions of the feature tables in the
    release, null without one: a range join.

    Time is cut into about as many buckets as there are intervals, so that an event is compared with the intervals of
    its bucket only.
    """
    from pyspark.sql import functions as F

    # An event at the time of a publication still gets the release before it.
    later = 1 if clock == "published" else 0
    starts = [_micros(start) + later for start, _ in intervals]
    first, last = (starts[0], starts[-1]) if starts else (0, 0)
    width = (last - first) // max(1, len(starts)) + 1
    last_bucket = (last - first) // width
    rows = []
    for number, (start, end) in enumerate(zip(starts, [*starts, _END][1:], strict=True)):
        release = intervals[number][1]
        if release is not None:
            values = (start, end, number, release.release_id, *(release.version(table) for table in KEYS))
            buckets = range((start - first) // width, min((end - 1 - first) // width, last_bucket) + 1)
            rows += [(bucket, *values) for bucket in buckets]
    types = {name: pa.int64() for name in ("_bucket", "_start", "_end", "_interval", "release_id", *_VERSIONS)}
    types["release_id"] = pa.string()
    # From Arrow, so that Spark knows the size, and may send these few rows to the events.
    named = [dict(zip(types, row, strict=True)) for row in rows]
    releases = spark.createDataFrame(pa.Table.from_pylist(named, pa.schema(list(types.items())))).alias("r")
    placed = events.withColumn("_micros", F.unix_micros(F.col("event_time").cast("timestamp")))
    bucket = F.least(F.expr(f"(_micros - {first}L) div {width}L"), F.lit(last_bucket).cast("long"))
    placed = placed.withColumn("_bucket", bucket).alias("e")
    at = F.col("e._micros")
    inside = (F.col("e._bucket") == F.col("r._bucket")) & (at >= F.col("r._start")) & (at < F.col("r._end"))
    added = [f"r.{name}" for name in ("_interval", "release_id", *_VERSIONS)]
    return placed.join(releases, inside, "left").select(*[f"e.`{name}`" for name in events.columns], *added)


def _micros(time: datetime) -> int:
    return round(time.timestamp() * 1_000_000)


def releases_at(
    workspace: Workspace, micros: np.ndarray, clock: Clock = "published"
) -> tuple[list[LedgerRow], np.ndarray]:
    """The releases of ``features_at`` for times ``micros`` [n] (microseconds since 1970), without Spark.

    Returns (rows of ``releases``, position [n] of each time's release in them, or -1 before every release).
    """
    intervals = intervals_of(ledger(workspace), clock)
    begins = np.array([_micros(start) for start, _ in intervals], dtype=np.int64)
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
