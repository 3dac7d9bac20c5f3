"""Reads and writes of Delta tables with delta-spark; every write enforces the contracts of schemas/."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.core.errors import RowCountError
from learn_spark.core.storage.path import storage_path
from learn_spark.core.tables.contracts import Contract, ContractError
from learn_spark.core.tables.create import create_table
from learn_spark.core.tables.leases import require_leases
from learn_spark.core.tables.log import append_table, is_checked_without_spark, replace_rows, where_keys
from learn_spark.core.tables.observed import observed
from learn_spark.core.tables.small import SMALL_ROWS
from learn_spark.core.tables.snapshot import Snapshot, current_version, open_table, open_version

if TYPE_CHECKING:
    from delta.tables import DeltaTable
    from deltalake import DeltaTable as NativeTable
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType


def create_if_missing(path: str, contract: Contract) -> None:
    """Create the table with its NOT NULL and CHECK constraints in one commit, or check the existing table.

    Raises ContractError if the existing table has other columns or lacks a constraint.
    """
    if current_version(path) is None:
        create_table(path, contract)
        return
    # Read without Spark, whose metadata commands are slower than writing a small delivery.
    existing = open_table(path)
    _check_columns(_spark_schema(existing), contract)
    properties = {key.lower(): value for key, value in existing.metadata().configuration.items()}
    for name, condition in contract.constraints.items():
        if properties.get(f"delta.constraints.{name.lower()}") != condition:
            raise ContractError(
                f"the table {path} lacks the constraint {name} of its contract ({condition}); another version of "
                "learn-spark created it: use another workspace, or add the constraint by ALTER TABLE"
            )


def append(frame: DataFrame, path: str, contract: Contract) -> None:
    """Append rows in one commit."""
    create_if_missing(path, contract)
    with translated(contract, path):
        conform(frame, contract).write.format("delta").mode("append").save(storage_path(path).spark)


def overwrite(frame: DataFrame, path: str, contract: Contract, *, where: str | None = None) -> None:
    """Replace all rows, or those that satisfy ``where``, in one commit."""
    create_if_missing(path, contract)
    writer = conform(frame, contract).write.format("delta").mode("overwrite")
    if where:
        writer = writer.option("replaceWhere", where)
    with translated(contract, path):
        writer.save(storage_path(path).spark)


def merge(
    frame: DataFrame, path: str, contract: Contract, *, update_when: str | None = None, most: int | None = None
) -> dict[str, int]:
    """Insert rows with new keys; update existing rows for which ``update_when`` is true (``t``: table, ``s``: row).

    Writes no commit if nothing changes, and appends if nothing is updated. Returns the numbers of rows ``inserted`` and
    ``updated``. Raises RowCountError if the numbers in the log differ from the planned ones. ``most``: the most rows
    that ``frame`` can have; a few are joined by one Spark job, and written without Spark.
    """
    from pyspark.sql import functions as F

    spark = frame.sparkSession
    create_if_missing(path, contract)
    source, existing = conform(frame, contract), Snapshot.open(path)
    few = most is not None and most <= SMALL_ROWS
    if not existing.rows:
        rows = append_arrow(spark, source.toArrow(), path, contract) if few else _append_counted(source, path, contract)
        return {"inserted": rows, "updated": 0}
    condition = " AND ".join(f"t.{key} = s.{key}" for key in contract.key)
    joined = source.alias("s").join(read(spark, path, existing.version).alias("t"), F.expr(condition), "left")
    is_new = F.col(f"t.{contract.key[0]}").isNull()
    updates = F.expr(update_when) if update_when else F.lit(False)
    changed = joined.where(is_new | updates).select("s.*", is_new.alias("_is_new"))
    if few:
        return _merge_arrow(spark, changed.toArrow(), existing, contract, condition)
    return _merge_frame(changed.persist(), path, contract, condition)


def append_arrow(spark: SparkSession, rows: pa.Table, path: str, contract: Contract) -> int:
    """Append the rows in one commit, none if there are none, without Spark where that can check the constraints.

    Returns their number. Raises RowCountError if the log has another number.
    """
    if not rows.num_rows:
        return 0
    if not is_checked_without_spark(contract):
        return _append_counted(conform(spark.createDataFrame(rows), contract), path, contract)
    _check_added(contract, path, append_table(path, contract, rows), rows.num_rows)
    return rows.num_rows


def _merge_arrow(
    spark: SparkSession, changed: pa.Table, existing: Snapshot, contract: Contract, condition: str
) -> dict[str, int]:
    path, new = existing.path, pc.sum(changed["_is_new"]).as_py() or 0
    planned, rows = {"inserted": new, "updated": changed.num_rows - new}, changed.drop_columns(["_is_new"])
    if not planned["updated"]:
        append_arrow(spark, rows, path, contract)
        return planned
    where = where_keys(contract, rows) if existing.is_small and is_checked_without_spark(contract) else None
    if where is None:
        frame = spark.createDataFrame(rows).select(*contract.names)
        return _merge_by_spark(frame, path, contract, condition, planned)
    _check_added(contract, path, replace_rows(path, contract, rows, where), new)
    return planned


def _check_added(contract: Contract, path: str, version: int, expected: int) -> None:
    added = Snapshot.open(path, version).rows - Snapshot.open(path, version - 1).rows
    if added != expected:
        raise RowCountError(f"{contract.table}: {expected:,} added rows were expected, the log has {added:,}")


def _merge_frame(changed: DataFrame, path: str, contract: Contract, condition: str) -> dict[str, int]:
    from pyspark.sql import functions as F

    try:
        counted = changed.agg(F.count_if("_is_new"), F.count_if(~F.col("_is_new"))).first()
        assert counted is not None
        planned = {"inserted": counted[0], "updated": counted[1]}
        rows = changed.drop("_is_new")
        if not planned["updated"]:
            if planned["inserted"]:
                _append_counted(rows, path, contract)
            return planned
        # The changed rows are fixed above; evaluated again here, expressions of time could give other rows.
        return _merge_by_spark(rows, path, contract, condition, planned)
    finally:
        changed.unpersist()


def _merge_by_spark(
    rows: DataFrame, path: str, contract: Contract, condition: str, planned: dict[str, int]
) -> dict[str, int]:
    merging = delta_table(rows.sparkSession, path).alias("t").merge(rows.alias("s"), condition)
    with translated(contract, path):
        merging.whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()
    metrics = _newest_metrics(path)
    done = {
        "inserted": int(metrics.get("numTargetRowsInserted", 0)),
        "updated": int(metrics.get("numTargetRowsUpdated", 0)),
    }
    if done != planned:
        raise RowCountError(f"{contract.table}: {planned} rows were expected, the log has {done}")
    return done


def _append_counted(rows: DataFrame, path: str, contract: Contract) -> int:
    from pyspark.sql import Observation
    from pyspark.sql import functions as F

    counts, before = Observation(), current_version(path)
    with translated(contract, path):
        counted = rows.observe(counts, F.count(F.lit(1)).alias("rows"))
        counted.write.format("delta").mode("append").save(storage_path(path).spark)
    # Delta makes no commit of no rows.
    written = int(_newest_metrics(path).get("numOutputRows", -1)) if current_version(path) != before else 0
    planned = (observed(counts, rows.sparkSession) or {"rows": 0})["rows"]
    if written != planned:
        raise RowCountError(f"{contract.table}: {planned:,} appended rows were expected, the log has {written:,}")
    return written


def read(spark: SparkSession, path: str, version: int | None = None) -> DataFrame:
    """The rows of a table at ``version`` (None: the newest), in one partition if they are few.

    Spark reads the version's files; the log is read without it, which saves it some jobs. Raises SnapshotError as
    ``Snapshot.open``.
    """
    table = open_version(path, version)
    snapshot, schema = Snapshot.of(table, path), _spark_schema(table)
    if not snapshot.files:
        return no_rows(spark, schema)
    # Spark takes these characters of a path for patterns.
    files = [re.sub(r"([\[\]{}*?\\])", r"\\\1", file) for file in snapshot.spark_files]
    frame = spark.read.schema(schema).parquet(*files)
    return frame.coalesce(1) if snapshot.is_small else frame


def no_rows(spark: SparkSession, schema: StructType) -> DataFrame:
    """A frame of this schema without rows, which needs no job."""
    from pyspark.sql import functions as F

    return spark.range(0).select(*[F.lit(None).cast(field.dataType).alias(field.name) for field in schema])


def delta_table(spark: SparkSession, path: str) -> DeltaTable:
    """Spark's handle of a table, for merges."""
    from delta.tables import DeltaTable

    return DeltaTable.forPath(spark, storage_path(path).spark)


def conform(frame: DataFrame, contract: Contract) -> DataFrame:
    """The columns of the contract, in its order.

    Raises ContractError if a column is missing, not in the contract, or of another type.
    """
    _check_columns(frame.schema, contract)
    return frame.select(*contract.names)


def _newest_metrics(path: str) -> Mapping[str, Any]:
    metrics: Mapping[str, Any] = open_table(path).history(1)[0]["operationMetrics"]
    return metrics


def _spark_schema(table: NativeTable) -> StructType:
    from pyspark.sql.types import StructType

    return StructType.fromJson(json.loads(table.schema().to_json()))


def _check_columns(schema: StructType, contract: Contract) -> None:
    actual = {field.name: field.dataType.simpleString() for field in schema.fields}
    expected = {field.name: field.dataType.simpleString() for field in contract.spark_schema().fields}
    faults = [f"{name} is missing" for name in expected if name not in actual]
    faults += [f"{name} is not in the contract" for name in actual if name not in expected]
    faults += [f"{n} is {actual[n]}, not {expected[n]}" for n in expected if n in actual and actual[n] != expected[n]]
    if faults:
        raise ContractError(f"columns do not fit the contract of {contract.table}: {'; '.join(faults)}")


_CHECK = re.compile(r"CHECK constraint (\w+) (.*?) violated by row with values:\s*(.*?)(?:\n\s*at |\Z)", re.S)
_NOT_NULL = re.compile(r"NOT NULL constraint violated for column: (\w+(?:\.\w+)*)")
_NULLABLE = re.compile(r"DELTA_NOT_NULL_CONSTRAINT_VIOLATED.*?column:? (\w+(?:\.\w+)*)", re.S)


@contextmanager
def translated(contract: Contract, path: str) -> Iterator[None]:
    """Commit under this: LeaseLostError where another process may write meanwhile (``path``); a ContractError of one
    sentence for a violated constraint.
    """
    require_leases(storage_path(path))
    try:
        yield
    except Exception as error:
        text = str(error)
        if match := _CHECK.search(text):
            values = "; ".join(part.strip() for part in match[3].splitlines() if part.strip(" -"))
            raise ContractError(
                f"{contract.table}: a row violates the constraint {match[1]} {match[2]}: {values}"
            ) from None
        if match := _NOT_NULL.search(text) or _NULLABLE.search(text):
            raise ContractError(f"{contract.table}: {match[1]} must not be null") from None
        raise
