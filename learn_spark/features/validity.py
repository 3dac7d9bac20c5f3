"""Rows of a feature table over many versions, each with the versions that have it, from one read of the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.change_feed import feed
from learn_spark.features.ledger import LedgerRow, ledger, states

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def rows_with_validity(
    spark: SparkSession, path: StoragePath, key: str, first: int, last: int, column: str
) -> DataFrame:
    """The distinct rows of versions ``first`` to ``last``: key, the embedding as ``column``, _from and _to.

    A row is in the versions [_from, _to), _to being the largest long where no later version changes it. Read are the
    files of version ``first`` and the changes after it, so that a row which many versions share is read once. Raises
    LearnSparkError if the change data feed cannot be read.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    from learn_spark.core.tables import delta

    embedding = F.col("embedding").alias(column)
    rows = delta.read(spark, path, first).select(key, embedding, F.lit(first).cast("long").alias("_from"))
    if last == first:
        return rows.withColumn("_to", F.lit(_ALWAYS))
    changed = feed(spark, path, first + 1, last).where("_change_type != 'update_preimage'")
    exists = F.col("_change_type") != "delete"
    changed = changed.select(key, embedding, F.col("_commit_version").alias("_from"), exists.alias("_exists"))
    rows = rows.withColumn("_exists", F.lit(True)).unionByName(changed)
    # Rewriting a key is a deletion and an insertion in one version: the first of them is valid in no version.
    in_order = Window.partitionBy(key).orderBy("_from", "_exists")
    rows = rows.withColumn("_to", F.coalesce(F.lead("_from").over(in_order), F.lit(_ALWAYS)))
    return rows.where("_exists AND _from < _to").drop("_exists")


_ALWAYS = (1 << 63) - 1


def require_files(workspace: Workspace, table: str, releases: Sequence[LedgerRow]) -> None:
    """Raise LearnSparkError if one of ``releases`` has expired and its files of ``table`` are deleted.

    The ledger is asked first: only for releases that are expired now the folder is listed.
    """
    now = states(ledger(workspace))
    expired = [row for row in releases if now[row.release_id].status == "expired"]
    if not expired:
        return
    path = workspace.table(table)
    existing = {file.path.inner for file in path.files()}
    for row in sorted(expired, key=lambda row: row.version(table)):
        if not existing.issuperset(Snapshot.open(path, row.version(table)).files):
            raise LearnSparkError(
                f"features_at: events need release {row.release_id} (in force from {row.written_at:%Y-%m-%d %H:%M}, as "
                f"of {row.as_of:%Y-%m-%d}), which has expired: its rows of {table} are deleted. Leave out the events "
                "of its time, or keep more releases (learn-spark retain --releases)"
            )
