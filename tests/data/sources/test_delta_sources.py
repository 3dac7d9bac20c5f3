"""Delta tables as sources: deletion vectors, column mapping, partitions, change feeds, names of a catalog."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession

from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.sources.delta_tables import find_table, has_changes_since
from learn_spark.data.sources.location import LocationError
from learn_spark.pipeline.preflight import delivery
from tests.stored import stored_rows
from tests.world import write_config

Run = Callable[..., list[Any]]
MODERN = "'delta.columnMapping.mode' = 'name', 'delta.enableDeletionVectors' = 'true'"
FEED = "'delta.enableChangeDataFeed' = 'true'"
RELAXED = {f"{table}.refused_share": {"most": None} for table in ("items", "interactions")}


@pytest.fixture
def lake(spark: SparkSession, place: StoragePath) -> StoragePath:
    """A folder or address with the tables ``items`` and ``log``; log is partitioned, a column of it was renamed, and a
    deletion vector hides one row."""
    from learn_spark.core.tables.reach import reach

    reach(spark, [place])
    spark.sql(f"create table delta.`{(place / 'items').spark}` (sku string, name string) using delta")
    spark.sql(f"insert into delta.`{(place / 'items').spark}` values ('A1', 'Lamp'), ('A2', 'Rug')")
    log = f"delta.`{(place / 'log').spark}`"
    spark.sql(
        f"create table {log} (id string, buyer string, sku string, pieces int, day date) using delta "
        f"partitioned by (day) tblproperties ({MODERN}, {FEED})"
    )
    spark.sql(
        f"insert into {log} select /*+ coalesce(1) */ * from values ('o1', 'ann', 'A1', 1, date'2024-03-01'), "
        "('o2', 'bob', 'A1', 2, date'2024-03-01'), ('o3', 'bob', 'A2', 3, date'2024-03-01'), "
        "('o4', 'eve', 'A7', 1, date'2024-03-02')"
    )
    spark.sql(f"alter table {log} rename column buyer to `the customer`")
    spark.sql(f"delete from {log} where id = 'o2'")
    return place


@pytest.fixture
def settings_of(tmp_path: Path) -> Callable[..., Settings]:
    """Settings of a workspace in a folder whose source is the two tables at a place."""

    def make(lake: StoragePath, **files: str) -> Settings:
        path = tmp_path / "lake.yaml"
        tree = yaml.safe_load(write_config(path, raw=tmp_path, workspace=tmp_path / "w", model=tmp_path).read_text())
        columns = {
            "event_id": "id",
            "user_id": "the customer",
            "item_id": "sku",
            "value": "pieces",
            "event_time": "day",
        }
        items = {"files": files.get("items", "items"), "format": "delta"}
        events = {"files": files.get("log", "log"), "format": "delta", "columns": columns}
        tree["source"] = {
            "format": "files",
            "path": str(lake),
            "time_unit": "iso",
            "items": {**items, "columns": {"item_id": "sku", "title": "name"}},
            "events": events,
        }
        tree["storage"] = {"endpoint": lake.s3.server} if lake.s3.server else {}
        tree["quality"] = {"rules": RELAXED}
        path.write_text(yaml.safe_dump(tree))
        return load_settings(path)

    return make


def events_of(settings: Settings) -> set[tuple[Any, ...]]:
    rows = stored_rows(settings.workspace, "interactions")
    return {(row.event_id, row.user_id, row.item_id, row.value, row.event_time.day) for row in rows}


def test_rows_are_those_that_the_table_shows(
    spark: SparkSession, lake: StoragePath, settings_of: Callable[..., Settings], run: Run
) -> None:
    settings = settings_of(lake)
    forecast = delivery(settings, Workspace.planned(settings.workspace), force=False)
    assert (forecast.items.rows, forecast.events.files, forecast.notes) == (2, 1, ())
    counts = run(settings, "ingest")[0].run.counts
    # o2 is behind a deletion vector, and o4 is of an unknown item.
    first = {("o1", "ann", "A1", 1.0, 1), ("o3", "bob", "A2", 3.0, 1)}
    assert events_of(settings) == first
    assert (counts["rows_in"], counts["interactions"], counts["refused"]) == (5, 2, 1)

    # With a change feed only what is new is read: the newest of two updates, an insert, and no deleted row.
    log = f"delta.`{(lake / 'log').spark}`"
    spark.sql(f"update {log} set pieces = 9 where id = 'o1'")
    spark.sql(f"update {log} set pieces = 5 where id = 'o1'")
    spark.sql(f"insert into {log} values ('o5', 'zoe', 'A2', 1, date'2024-03-03')")
    spark.sql(f"delete from {log} where id = 'o3'")
    counts = run(settings, "ingest")[0].run.counts
    assert (counts["rows_in"], counts["interactions"], counts["left_quarantine"]) == (2, 2, 0)
    now = {("o1", "ann", "A1", 5.0, 1), ("o3", "bob", "A2", 3.0, 1), ("o5", "zoe", "A2", 1.0, 3)}
    assert events_of(settings) == now
    assert [row.source_file for row in stored_rows(settings.workspace, "quarantine")] == ["log"]

    # Columns that changed are not in the change feed: the whole version is read.
    spark.sql(f"alter table {log} add column note string")
    spark.sql(f"insert into {log} values ('o6', 'zoe', 'A1', 1, date'2024-03-03', 'late')")
    counts = run(settings, "ingest")[0].run.counts
    assert (counts["rows_in"], counts["interactions"], counts["duplicates"]) == (4, 1, 2)
    # Without a change feed too.
    spark.sql(f"insert into delta.`{(lake / 'items').spark}` values ('A3', 'Pot')")
    counts = run(settings, "ingest")[0].run.counts
    assert (counts["rows_in"], counts["items"], counts["duplicates"]) == (3, 1, 2)
    # --force reads all, and nothing changes.
    counts = run(settings, "ingest", force=True)[0].run.counts
    assert (counts["rows_in"], counts["items"], counts["interactions"]) == (7, 0, 0)
    assert events_of(settings) == now | {("o6", "zoe", "A1", 1.0, 3)}


def test_tables_have_addresses_and_names(
    spark: SparkSession, lake: StoragePath, settings_of: Callable[..., Settings], run: Run, tmp_path: Path
) -> None:
    spark.sql("create database if not exists lake")
    try:
        spark.sql(f"create table lake.log using delta location '{(lake / 'log').spark}'")
        spark.sql("create table lake.plain (a int) using parquet")
        empty = StoragePath(str(tmp_path), lake.s3)
        named = {"log": "spark_catalog.lake.log", "items": "items"}
        if not lake.is_local:
            named["items"] = str(lake / "items")
        settings = settings_of(lake if lake.is_local else empty, **named)
        run(settings, "ingest")
        assert events_of(settings) == {("o1", "ann", "A1", 1.0, 1), ("o3", "bob", "A2", 3.0, 1)}
        names = {row.file for row in stored_rows(settings.workspace, "raw_files")}
        assert names == {"spark_catalog.lake.log", named["items"]}
        for wrong in ("lake.none", "lake.plain", "none", "../log", "ftp://host/log"):
            with pytest.raises(LocationError):
                find_table(empty, wrong, "events", lambda: spark)
        table = find_table(empty, "lake.log", "events", lambda: spark)
        assert not has_changes_since(table, "version:99")
        assert not has_changes_since(table, "version:1")
        assert has_changes_since(table, "version:2")
    finally:
        spark.sql("drop database lake cascade")
