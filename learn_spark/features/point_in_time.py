"""Features for training data: each event gets what was served at its time, never anything later."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import READABLE, ledger, releases_in_force, states
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
) -> DataFrame:
    """``events`` (columns user_id, item_id, event_time and any others) with release_id, user_embedding, item_embedding.

    By the clock ``published`` an event gets the release that held at its time: the newest published before it, and
    not withdrawn by then. By ``as_of`` it gets the release with the latest as-of time that is not after it, of those
    that may be read today: for logs of a time in which nothing was published (``learn-spark backfill``). All three are
    null for an event before every release; an embedding is null for a user or item that the release doesn't have. Rows
    are neither lost nor repeated.

    Each release that an event needs is read once. Raises LearnSparkError where a column is missing or taken.
    """
    from pyspark.sql import functions as F

    from learn_spark.core.tables import delta

    missing = {"user_id", "item_id", "event_time"} - set(events.columns)
    taken = set(ADDED) & set(events.columns)
    if missing or taken:
        what = f"lacks {sorted(missing)}" if missing else f"has {sorted(taken)} already"
        raise LearnSparkError(f"features_at: the frame of events {what}")
    where = workspace_of(spark, workspace)
    held = stretches(ledger(where), clock)
    # Few stretches, in order: the last one that begins before the event.
    at = F.col("event_time").cast("timestamp")
    place = F.lit(-1)
    for number, (start, _) in enumerate(held):
        begins = F.timestamp_micros(F.lit(round(start.timestamp() * 1_000_000)))
        place = F.when((at > begins) if clock == "published" else (at >= begins), number).otherwise(place)
    placed = events.withColumn("_stretch", place)
    used = sorted(row["_stretch"] for row in placed.select("_stretch").distinct().collect())
    rows = {number: held[number][1] for number in used if number >= 0}
    released = {number: row for number, row in rows.items() if row is not None}
    name = F.lit(None).cast("string")
    for number, row in released.items():
        name = F.when(F.col("_stretch") == number, row["release_id"]).otherwise(name)
    found = placed.withColumn("release_id", name)
    for table, key in KEYS.items():
        column = table.replace("features", "embedding")
        versions = {row["release_id"]: int(row["outputs"][table]) for row in released.values()}
        parts = [
            delta.read(spark, where.table(table), version).select(
                F.lit(release).alias("release_id"), key, F.col("embedding").alias(column)
            )
            for release, version in versions.items()
        ]
        if parts:
            found = found.join(reduce(lambda a, b: a.unionByName(b), parts), ["release_id", key], "left")
        else:
            found = found.withColumn(column, F.lit(None).cast("array<float>"))
    return found.select(*events.columns, *ADDED)


def releases_at(
    workspace: Workspace, micros: np.ndarray, clock: Clock = "published"
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """(releases, place [n]): the row of ``releases`` that each of the times ``micros`` [n] (microseconds since 1970)
    reads, by the rule of ``features_at``, as its place in the list; -1 before every release. Without Spark.
    """
    held = stretches(ledger(workspace), clock)
    begins = np.array([round(start.timestamp() * 1_000_000) for start, _ in held], dtype=np.int64)
    last = np.searchsorted(begins, micros, side="left" if clock == "published" else "right") - 1
    reads = [number for number in np.unique(last).tolist() if number >= 0 and held[number][1] is not None]
    place = np.full(len(held) + 1, -1, dtype=np.int32)  # the last one is where -1 looks
    place[reads] = np.arange(len(reads))
    return [row for number in reads if (row := held[number][1]) is not None], place[last]


def stretches(rows: list[dict[str, Any]], clock: Clock) -> list[tuple[datetime, dict[str, Any] | None]]:
    """(begin, release or None) in order of time: what an event gets from then on until the next begins."""
    if clock == "as_of":
        released = [row for row in states(rows).values() if row["status"] in READABLE]
        newest = {row["as_of"]: row for row in sorted(released, key=lambda row: row["sequence"])}
        return sorted(newest.items())
    if clock != "published":
        raise LearnSparkError(f"features_at: the clock is published or as_of, not {clock!r}")
    found: list[tuple[datetime, dict[str, Any] | None]] = []
    for start, end, row in releases_in_force(rows):
        if found and found[-1][0] == start:
            found.pop()
        found.append((start, row))
        if end is not None:
            found.append((end, None))
    return [(when.astimezone(UTC), row) for when, row in found]
