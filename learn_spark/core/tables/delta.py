"""Reads and writes of Delta tables with delta-spark; every write enforces the contracts of schemas/."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import deltalake

from learn_spark.core.errors import RowCountError
from learn_spark.core.tables.contracts import Contract, ContractError
from learn_spark.core.tables.create import create_table
from learn_spark.core.tables.observed import observed
from learn_spark.core.tables.snapshot import Snapshot, current_version

if TYPE_CHECKING:
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
    existing = deltalake.DeltaTable(path, without_files=True)
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
    with translated(contract):
        conform(frame, contract).write.format("delta").mode("append").save(path)


def overwrite(frame: DataFrame, path: str, contract: Contract, *, where: str | None = None) -> None:
    """Replace all rows, or those that satisfy ``where``, in one commit."""
    create_if_missing(path, contract)
    writer = conform(frame, contract).write.format("delta").mode("overwrite")
    if where:
        writer = writer.option("replaceWhere", where)
    with translated(contract):
        writer.save(path)


def merge(frame: DataFrame, path: str, contract: Contract, *, update_when: str | None = None) -> dict[str, int]:
    """Insert rows with new keys; update existing rows for which ``update_when`` is true (``t``: table, ``s``: row).

    Writes no commit if nothing changes, and appends if nothing is updated. Returns the numbers of rows ``inserted`` and
    ``updated``. Raises RowCountError if the numbers in the log differ from the planned ones.
    """
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    spark = frame.sparkSession
    create_if_missing(path, contract)
    source = conform(frame, contract)
    if not Snapshot.open(path).rows:
        return {"inserted": _append_counted(source, path, contract), "updated": 0}
    target = DeltaTable.forPath(spark, path)
    condition = " AND ".join(f"t.{key} = s.{key}" for key in contract.key)
    joined = source.alias("s").join(target.toDF().alias("t"), F.expr(condition), "left")
    is_new = F.col(f"t.{contract.key[0]}").isNull()
    updates = F.expr(update_when) if update_when else F.lit(False)
    changed = joined.where(is_new | updates).select("s.*", is_new.alias("_is_new")).persist()
    try:
        counted = changed.agg(F.count_if("_is_new"), F.count_if(~F.col("_is_new"))).first()
        assert counted is not None
        planned = {"inserted": counted[0], "updated": counted[1]}
        rows = changed.drop("_is_new")
        with translated(contract):
            if not planned["updated"]:
                if planned["inserted"]:
                    _append_counted(rows, path, contract)
                return planned
            plan = target.alias("t").merge(rows.alias("s"), condition)
            # The changed rows are fixed above; evaluated again here, expressions of time could give other rows.
            plan.whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()
    finally:
        changed.unpersist()
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
    with translated(contract):
        rows.observe(counts, F.count(F.lit(1)).alias("rows")).write.format("delta").mode("append").save(path)
    # Delta makes no commit of no rows.
    written = int(_newest_metrics(path).get("numOutputRows", -1)) if current_version(path) != before else 0
    planned = (observed(counts, rows.sparkSession) or {"rows": 0})["rows"]
    if written != planned:
        raise RowCountError(f"{contract.table}: {planned:,} appended rows were expected, the log has {written:,}")
    return written


def read(spark: SparkSession, path: str, version: int | None = None) -> DataFrame:
    """The rows of a table at ``version`` (None: the newest)."""
    reader = spark.read.format("delta")
    if version is not None:
        reader = reader.option("versionAsOf", version)
    return reader.load(path)


def conform(frame: DataFrame, contract: Contract) -> DataFrame:
    """The columns of the contract, in its order.

    Raises ContractError if a column is missing, not in the contract, or of another type.
    """
    _check_columns(frame.schema, contract)
    return frame.select(*contract.names)


def _newest_metrics(path: str) -> Mapping[str, Any]:
    metrics: Mapping[str, Any] = deltalake.DeltaTable(path, without_files=True).history(1)[0]["operationMetrics"]
    return metrics


def _spark_schema(table: deltalake.DeltaTable) -> StructType:
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
def translated(contract: Contract) -> Iterator[None]:
    """Translate the Java error of a violated constraint into a ContractError of one sentence."""
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
