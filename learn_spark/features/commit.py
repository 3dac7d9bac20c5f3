"""What is staged and audited goes into the tables that consumers read: one commit a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from learn_spark.core.errors import RowCountError
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.features.staging import Staged

if TYPE_CHECKING:
    from pyspark.sql import Column, SparkSession


def commit(spark: SparkSession, path: str, part: Staged, rows: int) -> int:
    """Bring the table to what was audited, in one commit or in none where nothing changed; its version then.

    RowCountError where it does not hold the ``rows`` that were audited.
    """
    table = contract(part.table)
    if not part.nothing:
        if part.everything:
            delta.overwrite(part.rows, path, table)
        else:
            _merge(spark, path, part)
    now = Snapshot.open(path)
    if now.rows != rows:
        raise RowCountError(
            f"{part.table}: {rows:,} rows were audited, version {now.version} holds {now.rows:,}; nothing is released"
        )
    return now.version


def _merge(spark: SparkSession, path: str, part: Staged) -> None:
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    table = contract(part.table)
    source = part.rows.withColumn("_gone", F.lit(False))
    if part.removed:
        gone = part.gone().withColumn("_gone", F.lit(True))
        source = source.unionByName(gone, allowMissingColumns=True)
    values: dict[str, str | Column] = {name: f"s.{name}" for name in table.names}
    merge = DeltaTable.forPath(spark, path).alias("t").merge(source.alias("s"), f"t.{part.key} = s.{part.key}")
    merge = merge.whenMatchedDelete("s._gone").whenMatchedUpdate(set=values)
    with delta.translated(table):
        merge.whenNotMatchedInsert("not s._gone", values).execute()
