"""What changed between two releases, for an online store: from the feature tables' change data feed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import ledger, states
from learn_spark.features.read import key_of, read_release, workspace_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

CHANGE = "change"


def changes(
    spark: SparkSession,
    table: str,
    since: str,
    *,
    until: str = "latest",
    workspace: Workspace | str | None = None,
) -> DataFrame:
    """What makes the rows of release ``since`` those of ``until``: one row an entity, with a column ``change``.

    insert and update carry the new row; delete carries the key alone. An entity whose row is the same in both is not
    there. ``since`` is what the store holds, so it may be withdrawn by now: after a rollback the changes lead back.

    Raises NoReleaseError where ``until`` does not hold, LearnSparkError where ``since`` was never released or the feed
    between the two is gone (then read ``until`` as a whole).
    """
    from pyspark.sql import functions as F

    where = workspace_of(spark, workspace)
    key = key_of(table)
    held = states(ledger(where)).get(since)
    if held is None:
        raise LearnSparkError(f"changes since {since!r}: there was no such release; learn-spark releases lists them")
    if held["status"] == "expired":
        raise LearnSparkError(f"changes since {since}: it expired, and its versions are gone; read {until} as a whole")
    start, end = (int(row["outputs"][table]) for row in (held, read_release(where, release=until)))
    path, names = where.table(table), contract(table).names
    if start == end:
        nothing = spark.createDataFrame([], contract(table).spark_schema())
        return nothing.withColumn(CHANGE, F.lit(""))
    feed = _feed(spark, path, min(start, end) + 1, max(start, end))
    row = F.struct(*(F.col(name) for name in names if name != key))
    version, kind = F.col("_commit_version"), F.col("_change_type")
    # The state before the first change of an entity and the one after its last; of no row where it was not there.
    was, becomes = kind.isin("delete", "update_preimage"), kind.isin("insert", "update_postimage")
    ends = feed.groupBy(key).agg(
        F.min(version).alias("first"),
        F.max(version).alias("last"),
        F.min_by(F.struct(version.alias("at"), row.alias("row")), F.when(was, version)).alias("before"),
        F.max_by(F.struct(version.alias("at"), row.alias("row")), F.when(becomes, version)).alias("after"),
    )
    before = F.when(F.col("before.at") == F.col("first"), F.col("before.row"))
    after = F.when(F.col("after.at") == F.col("last"), F.col("after.row"))
    old, new = (before, after) if start < end else (after, before)
    net = ends.select(key, old.alias("old"), new.alias("new")).where(~F.col("old").eqNullSafe(F.col("new")))
    change = F.when(F.col("old").isNull(), "insert").when(F.col("new").isNull(), "delete").otherwise("update")
    return net.select(
        *(key if name == key else F.col(f"new.{name}").alias(name) for name in names), change.alias(CHANGE)
    )


def _feed(spark: SparkSession, path: str, first: int, last: int) -> DataFrame:
    reader = spark.read.format("delta").option("readChangeFeed", "true")
    try:
        return reader.option("startingVersion", first).option("endingVersion", last).load(path)
    except Exception as error:
        raise LearnSparkError(
            f"the change data feed of {path} from version {first} to {last} cannot be read: {str(error)[:200]}; read "
            "the release as a whole instead"
        ) from error
