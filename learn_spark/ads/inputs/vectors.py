"""Released vectors of exposures, joined point in time: one row an entity and release, named by its number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from learn_spark.ads.inputs.numbering import write_numbered
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.workspace import Workspace
from learn_spark.core.times import from_micros
from learn_spark.features.ledger import LedgerRow, ledger
from learn_spark.features.point_in_time import Clock, intervals_of, with_interval
from learn_spark.features.read import KEYS
from learn_spark.features.validity import require_files, rows_with_validity

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

MASKED = 0
NAMES = {"user_features": "user", "item_features": "item"}


@dataclass(frozen=True)
class VectorFiles:
    """The vectors at ``paths``, one after another, from the number 1 on: column ``embedding``, ``rows`` together."""

    paths: Sequence[StoragePath]
    rows: int


def with_release(
    frame: DataFrame, workspace: Workspace, clock: Clock, path: StoragePath
) -> tuple[DataFrame, list[LedgerRow]]:
    """``frame``, written to ``path``, with ``release``, the place of each exposure's release in the list that is
    returned, -1 before every release, and the versions of its feature tables.

    It is the release that consumers could read at the time of the exposure, by ``features_at``'s rule.
    """
    from pyspark.sql import functions as F

    intervals = intervals_of(ledger(workspace), clock)
    joined = with_interval(frame.sparkSession, frame, intervals, clock).drop("release_id")
    joined.write.mode("overwrite").parquet(path.spark)
    joined = frame.sparkSession.read.schema(joined.schema).parquet(path.spark)
    used = sorted(row[0] for row in joined.select("_interval").distinct().collect() if row[0] is not None)
    places = F.array(*[F.lit(number).cast("long") for number in used]) if used else None
    place = F.lit(0) if places is None else F.array_position(places, F.col("_interval"))
    joined = joined.withColumn("release", F.coalesce(place, F.lit(0)).cast("int") - 1).drop("_interval")
    return joined, [row for number in used if (row := intervals[number][1]) is not None]


def check_releases(releases: Sequence[LedgerRow], first: int, last: int, clock: Clock) -> None:
    """Raise LearnSparkError where no exposure, of the times ``first`` to ``last``, has a release, and where exposures
    would read releases of different towers, whose vector spaces differ.
    """
    if not releases:
        other = "as_of" if clock == "published" else "published"
        raise LearnSparkError(
            f"rank_ads: by the clock {clock} no release is from before any exposure "
            f"({from_micros(first):%Y-%m-%d %H:%M:%S} to {from_micros(last):%Y-%m-%d %H:%M:%S} UTC). Train and publish "
            "with histories.as_of before the exposures to rank (learn-spark releases lists what there is), or set "
            f"ranking.clock: {other}"
        )
    towers = {row.model_id for row in releases}
    if len(towers) > 1:
        names = "; ".join(f"{r.release_id} as of {r.as_of:%Y-%m-%d} by model {r.model_id}" for r in releases)
        raise LearnSparkError(
            f"rank_ads: by the clock {clock} the exposures would read vectors of {len(towers)} towers, which are not "
            f"in one space: {names}. Rank exposures of one tower's time, or publish the past by one tower "
            "(learn-spark backfill) and set ranking.clock: as_of"
        )


def with_vectors(
    frame: DataFrame,
    workspace: Workspace,
    releases: Sequence[LedgerRow],
    folder: StoragePath,
    recent: DataFrame | None = None,
    *,
    small: bool,
) -> tuple[DataFrame, VectorFiles]:
    """``frame`` with ``user_row`` and ``item_row``, numbers in the vectors that Spark writes below ``folder``.

    Only entities that exposures of a release name are written, once an entity and release. MASKED: no vector. With
    ``recent`` (``recent_items``) also the column ``recent``: the numbers of its items that have a vector, the oldest
    event first; null for none.
    """
    from pyspark.sql import functions as F

    spark, rows, paths = frame.sparkSession, 1, []
    for table, key in KEYS.items():
        require_files(workspace, table, releases)
        versions = [row.version(table) for row in releases]
        version = F.col(f"p._{table}")
        versions_of = frame.where("release >= 0").select("release", f"_{table}").distinct()
        named = frame.where("release >= 0").select(key, "release")
        if recent is not None and key == "item_id":
            named = named.unionByName(recent.select(key, "release"))
        asked = named.distinct().join(F.broadcast(versions_of), "release").alias("p")
        valid = rows_with_validity(spark, workspace.table(table), key, min(versions), max(versions), "embedding")
        same = (F.col(f"p.{key}") == F.col(f"v.{key}")) & (version >= F.col("v._from")) & (version < F.col("v._to"))
        vectors = asked.join(valid.alias("v"), same).select("p.release", f"p.{key}", "v.embedding")
        path = folder / table
        numbered, count = write_numbered(vectors, ["release", key], path, first=rows, small=small)
        numbers = numbered.select("release", key, F.col("number").alias(f"{NAMES[table]}_row"))
        frame = frame.join(numbers, ["release", key], "left").fillna(MASKED, [f"{NAMES[table]}_row"])
        if recent is not None and key == "item_id":
            of = ["user_id", "time", "release"]
            placed = recent.join(numbers, ["release", key]).select(*of, F.struct("place", "item_row").alias("_row"))
            lists = placed.groupBy(*of).agg(F.sort_array(F.collect_list("_row"))["item_row"].alias("recent"))
            frame = frame.join(lists, of, "left")
        rows += count
        paths.append(path)
    return frame, VectorFiles(paths, rows - 1)


def moments_of(releases: Sequence[LedgerRow]) -> np.ndarray:
    """As-of times of the releases [R] in microseconds since 1970."""
    return np.array([round(row.as_of.timestamp() * 1_000_000) for row in releases], dtype=np.int64)
