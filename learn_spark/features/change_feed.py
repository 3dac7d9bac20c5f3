"""Changes between two releases for an online store, from the change data feed of the feature tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import ledger, states
from learn_spark.features.read import key_of, read_release, table_of

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
    """The changes from release ``since`` to release ``until``: one row per entity, with a column ``change``.

    insert and update have the new row; delete has only the key. Entities with the same row in both are left out.
    ``table`` and ``workspace``: as for ``read``. ``since`` is the release that the store has loaded. It may be
    withdrawn since: after a rollback the changes restore the earlier rows.

    Raises NoReleaseError if ``until`` is not readable; LearnSparkError if ``since`` was never released, has expired,
    or the change data feed between the two is deleted (then read ``until`` as a whole).
    """
    from pyspark.sql import functions as F

    where, table = table_of(spark, table, workspace)
    key = key_of(table)
    start, end = versions_between(where, table, since, until)
    path, names = where.table(table), contract(table).names
    if start == end:
        empty = spark.createDataFrame([], contract(table).spark_schema())
        return empty.withColumn(CHANGE, F.lit(""))
    rows = feed(spark, path, min(start, end) + 1, max(start, end))
    row = F.struct(*(F.col(name) for name in names if name != key))
    version, kind = F.col("_commit_version"), F.col("_change_type")
    # The row before an entity's first change and the row after its last change; null if there was none.
    was, becomes = kind.isin("delete", "update_preimage"), kind.isin("insert", "update_postimage")
    ends = rows.groupBy(key).agg(
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


def versions_between(workspace: Workspace, table: str, since: str, until: str) -> tuple[int, int]:
    """The versions of a feature table in the releases ``since``, which may be withdrawn, and ``until``.

    Raises NoReleaseError if ``until`` is not readable; LearnSparkError if ``since`` was never released or has expired.
    """
    loaded = states(ledger(workspace)).get(since)
    if loaded is None:
        raise LearnSparkError(
            f"changes since {since!r}: no such release was published; learn-spark releases lists all releases"
        )
    if loaded.status == "expired":
        raise LearnSparkError(
            f"changes since {since}: the release expired and its table versions are deleted; read {until} as a whole"
        )
    return loaded.version(table), read_release(workspace, release=until).version(table)


def feed(spark: SparkSession, path: StoragePath, first: int, last: int) -> DataFrame:
    """The change data feed of a table, of the versions ``first`` to ``last``: its columns, _change_type,
    _commit_version and _commit_timestamp. Raises LearnSparkError if it cannot be read.
    """
    reader = spark.read.format("delta").option("readChangeFeed", "true")
    try:
        return reader.option("startingVersion", first).option("endingVersion", last).load(path.spark)
    except Exception as error:
        raise LearnSparkError(
            f"the change data feed of {path} from version {first} to {last} cannot be read: {str(error)[:200]}; read "
            "the release as a whole instead"
        ) from error
