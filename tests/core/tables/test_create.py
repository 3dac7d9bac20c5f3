"""A table that is created without Spark is the one that delta-spark makes for the same contract."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from delta.tables import DeltaTable
from deltalake.exceptions import DeltaError
from pyspark.sql import Row, SparkSession
from pyspark.sql.types import StructField, StructType, _parse_datatype_string

from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import Contract, ContractError, all_tables, contract
from learn_spark.core.tables.create import create_table, table_properties
from learn_spark.core.tables.snapshot import current_version, open_table
from tests.core.tables.test_delta import ITEMS, frame, item

PLAIN = ITEMS.model_copy(update={"constraints": {}})
WITH_FEED = PLAIN.model_copy(update={"change_data_feed": True})


def parsed_by_spark(table: Contract) -> StructType:
    """The columns as Spark's own parser of type names reads them."""
    names = {column.name: column.type.replace("long", "bigint") for column in table.columns}
    return StructType([StructField(c.name, _parse_datatype_string(names[c.name]), c.nullable) for c in table.columns])


def comment_of(meaning: str, unit: str | None) -> str:
    return meaning + (f" ({unit})" if unit else "")


def create_by_spark(spark: SparkSession, path: StoragePath, table: Contract) -> None:
    builder = DeltaTable.createIfNotExists(spark).location(path.spark).comment(table.meaning)
    for field, column in zip(parsed_by_spark(table), table.columns, strict=True):
        builder = builder.addColumn(
            field.name, field.dataType, nullable=field.nullable, comment=comment_of(column.meaning, column.unit)
        )
    for name, value in table_properties(table).items():
        builder = builder.property(name, value)
    builder.execute()


# What writers of protocol 3 and 4 must know, by name, as delta-spark may list it.
IMPLIED = {2: {"appendOnly", "invariants"}, 3: {"appendOnly", "invariants", "checkConstraints"}}
IMPLIED[4] = IMPLIED[3] | {"changeDataFeed", "generatedColumns"}
PROTOCOL = ("delta.minReaderVersion", "delta.minWriterVersion")


def features(detail: Row) -> set[str]:
    """The features that a writer of the table must know."""
    return IMPLIED.get(detail.minWriterVersion, set()) | set(detail.tableFeatures)


@pytest.mark.parametrize("table", [*map(contract, all_tables()), PLAIN, WITH_FEED], ids=lambda table: table.table)
def test_the_table_is_the_one_that_delta_spark_makes(spark: SparkSession, place: StoragePath, table: Contract) -> None:
    ours, sparks = place / "ours", place / "sparks"
    create_table(ours, table)
    create_by_spark(spark, sparks, table)
    assert table.spark_schema() == parsed_by_spark(table)
    details = [spark.sql(f"DESCRIBE DETAIL delta.`{path.spark}`").collect()[0] for path in (ours, sparks)]
    ours_detail, sparks_detail = details
    for field in ("format", "partitionColumns", "minReaderVersion", "description"):
        assert ours_detail[field] == sparks_detail[field], field
    properties = {name: value for name, value in ours_detail.properties.items() if name not in PROTOCOL}
    assert properties == sparks_detail.properties
    # All that Spark's table asks of a writer, and nothing but what writers of that number have anyway.
    assert features(sparks_detail) <= features(ours_detail) <= IMPLIED[4]
    assert delta.read(spark, ours).schema == delta.read(spark, sparks).schema
    comments = [[field.metadata for field in open_table(path).schema().fields] for path in (ours, sparks)]
    assert comments[0] == comments[1] == [{"comment": comment_of(c.meaning, c.unit)} for c in table.columns]


def test_spark_and_deltalake_write_to_it_and_both_keep_its_constraints(spark: SparkSession, place: StoragePath) -> None:
    path = place / "items"
    create_table(path, ITEMS)
    assert current_version(path) == 0
    delta.append(frame(spark, item("1", price=2.5)), path, ITEMS)
    with pytest.raises(ContractError, match="price_not_negative"):
        delta.append(frame(spark, item("2", price=-1.0)), path, ITEMS)
    rows = delta.read(spark, path).toArrow()
    from deltalake import write_deltalake

    write_deltalake(str(path), rows.cast(ITEMS.arrow_schema()), mode="append", storage_options=path.delta_options)
    bad = rows.set_column(rows.schema.get_field_index("price"), "price", [[-1.0]]).cast(ITEMS.arrow_schema())
    with pytest.raises(DeltaError, match="price"):
        write_deltalake(str(path), bad, mode="append", storage_options=path.delta_options)
    assert open_table(path).version() == 2
    assert delta.read(spark, path).count() == 2


def test_the_feed_of_changes_has_rows_from_the_first_version(spark: SparkSession, place: StoragePath) -> None:
    path = place / "items"
    create_table(path, WITH_FEED)
    delta.append(frame(spark, item("1")), path, WITH_FEED)
    newer = "s.updated_at > t.updated_at"
    delta.merge(frame(spark, item("1", "new", day=2)), path, WITH_FEED, update_when=newer)
    feed = spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", 0).load(path.spark)
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


def test_many_that_create_at_once_make_one_table(place: StoragePath) -> None:
    path = place / "items"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: create_table(path, ITEMS), range(8)))
    assert current_version(path) == 0


def test_spark_alters_such_a_table_and_keeps_its_constraints(spark: SparkSession, place: StoragePath) -> None:
    path = place / "items"
    create_table(path, WITH_FEED.model_copy(update={"constraints": ITEMS.constraints}))
    spark.sql(f"ALTER TABLE delta.`{path.spark}` ADD CONSTRAINT named CHECK (title <> '')")
    spark.sql(f"ALTER TABLE delta.`{path.spark}` SET TBLPROPERTIES ('delta.checkpointInterval' = '5')")
    delta.append(frame(spark, item("1")), path, ITEMS)
    with pytest.raises(ContractError, match="named"):
        delta.append(frame(spark, item("2", "")), path, ITEMS)
    with pytest.raises(ContractError, match="price_not_negative"):
        delta.append(frame(spark, item("3", price=-1.0)), path, ITEMS)
