"""Commits audited rows to the tables that consumers read, one commit per table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.core.errors import RowCountError
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.small import SMALL_ROWS
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.features.staged_release import StagedTable

if TYPE_CHECKING:
    from pyspark.sql import Column, SparkSession


def commit(spark: SparkSession, path: str, part: StagedTable, rows: int) -> int:
    """Write the audited rows in one commit (none if nothing changed); returns the version of the table.

    Raises RowCountError if the table then has another number of rows than ``rows``, the audited number.
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
            f"{part.table}: {rows:,} rows were audited, version {now.version} has {now.rows:,}; nothing is released"
        )
    return now.version


def _merge(spark: SparkSession, path: str, part: StagedTable) -> None:
    from pyspark.sql import functions as F

    table = contract(part.table)
    if not part.removed and (rows := _only_new(path, part)) is not None:
        delta.append_arrow(spark, rows, path, table)
        return
    source = part.rows.withColumn("_removed", F.lit(False))
    if part.removed:
        removed = part.removed_keys().withColumn("_removed", F.lit(True))
        source = source.unionByName(removed, allowMissingColumns=True)
    values: dict[str, str | Column] = {name: f"s.{name}" for name in table.names}
    merge = delta.delta_table(spark, path).alias("t").merge(source.alias("s"), f"t.{part.key} = s.{part.key}")
    merge = merge.whenMatchedDelete("s._removed").whenMatchedUpdate(set=values)
    with delta.translated(table, path):
        merge.whenNotMatchedInsert("not s._removed", values).execute()


def _only_new(path: str, part: StagedTable) -> pa.Table | None:
    """The staged rows where they are few and all of new entities, so that they can be appended without Spark."""
    staged, existing = Snapshot.open(part.place), Snapshot.open(path)
    if not staged.is_small or existing.rows > SMALL_ROWS:
        return None
    rows = staged.to_arrow()
    known = pc.is_in(rows[part.key], value_set=existing.to_arrow([part.key])[part.key])
    return None if pc.any(known).as_py() else rows
