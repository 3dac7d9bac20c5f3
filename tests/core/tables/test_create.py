"""A table's first commit, written without Spark, is the one that delta-spark writes for the same contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from delta.tables import DeltaTable
from deltalake import DeltaTable as DeltaRsTable
from deltalake.exceptions import DeltaError
from pyspark.sql import SparkSession
from pyspark.sql.types import StructField, StructType, _parse_datatype_string

from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import Contract, ContractError, all_tables, contract
from learn_spark.core.tables.create import create_table, table_properties
from learn_spark.core.tables.snapshot import current_version
from tests.core.tables.test_delta import ITEMS, frame, item

PLAIN = ITEMS.model_copy(update={"constraints": {}})
WITH_FEED = PLAIN.model_copy(update={"change_data_feed": True})


def parsed_by_spark(table: Contract) -> StructType:
    """The columns as Spark's own parser of type names reads them."""
    names = {column.name: column.type.replace("long", "bigint") for column in table.columns}
    return StructType([StructField(c.name, _parse_datatype_string(names[c.name]), c.nullable) for c in table.columns])


def create_by_spark(spark: SparkSession, path: str, table: Contract) -> None:
    builder = DeltaTable.createIfNotExists(spark).location(path).addColumns(parsed_by_spark(table))
    for name, value in table_properties(table).items():
        builder = builder.property(name, value)
    builder.execute()


def first_commit(path: str) -> dict[str, Any]:
    """What of version 0 does not depend on the moment: schema, properties, protocol, operation."""
    lines = (Path(path) / "_delta_log" / f"{0:020}.json").read_text(encoding="utf-8").splitlines()
    actions = {name: action for line in lines for name, action in json.loads(line).items()}
    metadata, commit = dict(actions["metaData"]), actions["commitInfo"]
    metadata["schemaString"] = json.loads(metadata["schemaString"])
    protocol = {name: sorted(v) if isinstance(v, list) else v for name, v in actions["protocol"].items()}
    parameters = {
        **commit["operationParameters"],
        "properties": json.loads(commit["operationParameters"]["properties"]),
    }
    kept = {name: commit[name] for name in ("operation", "isolationLevel", "isBlindAppend", "operationMetrics")}
    for name in ("id", "createdTime"):
        del metadata[name]
    return {"metaData": metadata, "protocol": protocol, "parameters": parameters, **kept}


@pytest.mark.parametrize("table", [*map(contract, all_tables()), PLAIN, WITH_FEED], ids=lambda table: table.table)
def test_the_first_commit_is_that_of_delta_spark(spark: SparkSession, tmp_path: Path, table: Contract) -> None:
    ours, sparks = str(tmp_path / "ours"), str(tmp_path / "sparks")
    create_table(ours, table)
    create_by_spark(spark, sparks, table)
    assert first_commit(ours) == first_commit(sparks)
    assert table.spark_schema() == parsed_by_spark(table)
    details = [spark.sql(f"DESCRIBE DETAIL delta.`{path}`").collect()[0] for path in (ours, sparks)]
    for field in ("format", "partitionColumns", "properties", "minReaderVersion", "minWriterVersion", "tableFeatures"):
        assert details[0][field] == details[1][field], field
    assert delta.read(spark, ours).schema == delta.read(spark, sparks).schema


def test_spark_and_deltalake_write_to_it_and_both_keep_its_constraints(spark: SparkSession, tmp_path: Path) -> None:
    path = str(tmp_path / "items")
    create_table(path, ITEMS)
    assert current_version(path) == 0
    delta.append(frame(spark, item("1", price=2.5)), path, ITEMS)
    with pytest.raises(ContractError, match="price_not_negative"):
        delta.append(frame(spark, item("2", price=-1.0)), path, ITEMS)
    rows = delta.read(spark, path).toArrow()
    from deltalake import write_deltalake

    write_deltalake(path, rows.cast(ITEMS.arrow_schema()), mode="append")
    bad = rows.set_column(rows.schema.get_field_index("price"), "price", [[-1.0]]).cast(ITEMS.arrow_schema())
    with pytest.raises(DeltaError, match="price"):
        write_deltalake(path, bad, mode="append")
    assert DeltaRsTable(path).version() == 2
    assert delta.read(spark, path).count() == 2


def test_the_feed_of_changes_has_rows_from_the_first_version(spark: SparkSession, tmp_path: Path) -> None:
    path = str(tmp_path / "items")
    create_table(path, WITH_FEED)
    delta.append(frame(spark, item("1")), path, WITH_FEED)
    newer = "s.updated_at > t.updated_at"
    delta.merge(frame(spark, item("1", "new", day=2)), path, WITH_FEED, update_when=newer)
    feed = spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", 0).load(path)
    changes = sorted((row._commit_version, row._change_type, row.title) for row in feed.collect())
    assert changes == [(1, "insert", "t"), (2, "update_postimage", "new"), (2, "update_preimage", "t")]


def test_who_comes_second_leaves_the_first_commit_and_no_file(tmp_path: Path) -> None:
    path = str(tmp_path / "items")
    create_table(path, ITEMS)
    log = Path(path) / "_delta_log"
    before = (log / f"{0:020}.json").read_bytes()
    create_table(path, ITEMS)
    assert [file.name for file in log.iterdir()] == [f"{0:020}.json"]
    assert (log / f"{0:020}.json").read_bytes() == before


def test_a_process_killed_before_the_commit_leaves_no_table(tmp_path: Path) -> None:
    path = str(tmp_path / "items")
    log = Path(path) / "_delta_log"
    log.mkdir(parents=True)
    (log / ".half.tmp").write_text('{"commitInfo":')
    assert current_version(path) is None
    delta.create_if_missing(path, ITEMS)
    assert current_version(path) == 0
