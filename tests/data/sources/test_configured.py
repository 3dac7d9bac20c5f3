"""Own data described in settings: CSV, JSON lines, Parquet and Delta; expressions, conditions, several files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyspark.sql import SparkSession

from learn_spark.core.errors import SettingsError
from learn_spark.core.settings import Settings, load_settings
from learn_spark.data.sources.location import LocationError
from tests.stored import stored_rows
from tests.world import write_config

ITEMS = 'sku,name,dept,cost\nA1,"Lamp, ""round""",Home,12.50\n,Rug,Home,-3\nC3,,Home,\nD4,Vase\n'
LOG = (
    "customer,sku,when,amount\n"
    "ann,A1,2024-03-01 10:00:00,1\n"
    "ann,C3,2024-03-01T11:30:00Z,2\n"
    "bob,A1,2024-03-02,1\n"
    "bob,B2,2024-03-02 09:00:00,1\n"
    "bob,A1,not a time,1\n"
)
ITEM_COLUMNS = {"item_id": "sku", "title": "name", "category": "dept", "price": "cost"}
EVENT_COLUMNS = {"user_id": "customer", "item_id": "sku", "event_time": "when", "value": "amount"}
SOURCE: dict[str, Any] = {
    "format": "files",
    "time_unit": "iso",
    "event_type": "purchase",
    "items": {"files": "items.csv.gz", "columns": ITEM_COLUMNS},
    "events": {"files": "log.csv", "columns": EVENT_COLUMNS},
}
# These worlds are of a handful of rows, of which many are bad on purpose.
NO_SHARES = {f"{table}.refused_share": {"most": None} for table in ("items", "interactions")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "items.csv.gz").write_bytes(gzip.compress(ITEMS.encode()))
    (folder / "log.csv").write_text(LOG)
    return folder


@pytest.fixture
def own_settings(tmp_path: Path, folder: Path) -> Callable[..., Settings]:
    path = write_config(tmp_path / "own.yaml", raw=folder, workspace=tmp_path / "workspace", model=tmp_path)
    tree = yaml.safe_load(path.read_text())

    def make(**source: Any) -> Settings:
        described = {**SOURCE, "path": str(folder), **source}
        path.write_text(yaml.safe_dump({**tree, "source": described, "quality": {"rules": NO_SHARES}}))
        return load_settings(path)

    return make


def rows(settings: Settings, table: str) -> list[Any]:
    return stored_rows(settings.workspace, table)


def events_of(settings: Settings) -> dict[tuple[str, str], Any]:
    return {(row.user_id, row.item_id): row for row in rows(settings, "interactions")}


def test_csv_with_quotes_gzip_and_broken_lines(own_settings: Callable[..., Settings], run: Callable[..., Any]) -> None:
    settings = own_settings()
    (outcome,) = run(settings, "ingest")
    counts = outcome.run.counts
    assert (counts["items"], counts["interactions"], counts["refused"], counts["files"]) == (2, 3, 4, 2)
    items = {row.item_id: row for row in rows(settings, "items")}
    assert (items["A1"].title, items["A1"].price, items["A1"].brand) == ('Lamp, "round"', 12.5, None)
    assert items["C3"].title is None
    events = events_of(settings)
    assert events["ann", "C3"].event_time.replace(tzinfo=UTC) == datetime(2024, 3, 1, 11, 30, tzinfo=UTC)
    assert {row.event_type for row in events.values()} == {"purchase"}
    quarantined = rows(settings, "quarantine")
    refused = {(row.source_table, tuple(row.reasons)): json.loads(row.raw) for row in quarantined}
    assert refused["items", ("no item_id",)]["name"] == "Rug"
    assert refused["items", ("malformed line",)] == {"line": "D4,Vase"}
    assert refused["interactions", ("unknown item",)]["sku"] == "B2"
    assert refused["interactions", ("event_time is not a time",)]["when"] == "not a time"
    assert {(row.source_table, row.source_file) for row in quarantined} == {
        ("items", "items.csv.gz"),
        ("interactions", "log.csv"),
    }


def test_line_breaks_inside_quotes(
    folder: Path, own_settings: Callable[..., Settings], run: Callable[..., Any]
) -> None:
    lines = 'sku,name,dept,cost\nA1,"Lamp,\n ""round""",Home,12.50\nC3,Bowl,Home,2\n'
    (folder / "items.csv.gz").write_bytes(gzip.compress(lines.encode()))
    settings = own_settings(items={"files": "items.csv.gz", "columns": ITEM_COLUMNS, "multiline": True})
    counts = run(settings, "ingest")[0].run.counts
    actual = {row.item_id: row for row in rows(settings, "items")}
    assert actual["A1"].title.split() == ["Lamp,", '"round"']
    assert (actual["A1"].price, actual["C3"].price) == (12.5, 2.0)
    # Two items, and of five events that of an unknown item and that without a time are refused.
    assert (len(actual), counts["refused"]) == (2, 2)


def test_what_is_described_wrongly_is_named(own_settings: Callable[..., Settings], run: Callable[..., Any]) -> None:
    def events(**changes: Any) -> dict[str, Any]:
        return {**SOURCE["events"], **changes}

    with pytest.raises(LocationError, match=r"no column total in its header \(customer, sku, when, amount\)"):
        run(own_settings(events=events(columns={**EVENT_COLUMNS, "value": "total"})), "ingest")
    with pytest.raises(
        SettingsError,
        match=r"columns\.value: .*no column total; the files have the columns customer, sku, when, amount",
    ):
        run(own_settings(events=events(columns={**EVENT_COLUMNS, "value": "total * 2"})), "ingest")
    with pytest.raises(SettingsError, match=r"events\.where: .*no column country"):
        run(own_settings(events=events(where="country = 'France'")), "ingest")
    for pattern in ("../own.yaml", "/etc/passwd", "nothing*.csv"):
        with pytest.raises(LocationError, match="there is no "):
            run(own_settings(events=events(files=pattern)), "ingest")
    with pytest.raises(LocationError, match=r"there is no Delta table log\.csv"):
        run(own_settings(events=events(format="delta")), "ingest")
    for change, expected in (
        ({"items": None}, "source.items: must be given"),
        ({"events": {"files": "log.csv", "columns": {"item_id": "sku"}}}, "must contain event_time, user_id"),
        ({"items": {"files": "i", "columns": {"item_id": "sku", "colour": "c"}}}, "items.columns has colour"),
        (
            {"format": "movielens-100k"},
            "source.items: a setting of source.format files, and source.format is movielens-100k",
        ),
    ):
        with pytest.raises(SettingsError, match=expected):
            own_settings(**change)


def test_json_lines_items_and_parquet_events(
    folder: Path, own_settings: Callable[..., Settings], run: Callable[..., Any]
) -> None:
    lines = ['{"sku": 1, "name": "Lamp \\u00e9", "cost": 12.5}', '{"sku": "2", "name": "Rug"', '{"sku": 3, "cost": 1}']
    (folder / "items.jsonl").write_text("\n".join(lines) + "\n")
    table = pa.table(
        {
            "customer": pa.array([7, 8, None], pa.int64()),
            "sku": pa.array([1.0, 3.0, 1.0], pa.float64()),
            "when": pa.array([datetime(2024, 3, day, 10, 30, 0, 250_000) for day in (1, 2, 3)], pa.timestamp("us")),
            "amount": pa.array([1.5, None, 2.0], pa.float32()),
        }
    )
    pq.write_table(table, folder / "log.parquet")
    settings = own_settings(
        items={"files": "*.jsonl", "format": "json-lines", "columns": ITEM_COLUMNS},
        events={"files": "*.parquet", "format": "parquet", "columns": EVENT_COLUMNS},
    )
    run(settings, "ingest")
    items = {row.item_id: (row.title, row.price, row.category) for row in rows(settings, "items")}
    # No line names a dept: a field that a delivery lacks is as one that a line lacks.
    assert items == {"1": ("Lamp é", 12.5, None), "3": (None, 1.0, None)}
    events = events_of(settings)
    assert {key: row.value for key, row in events.items()} == {("7", "1"): 1.5, ("8", "3"): None}
    assert events["7", "1"].event_time == datetime(2024, 3, 1, 10, 30, 0, 250_000)
    refused = {tuple(row.reasons): json.loads(row.raw) for row in rows(settings, "quarantine")}
    assert refused["malformed line",] == {"line": lines[1]}
    assert (refused["no user_id",]["sku"], refused["no user_id",]["amount"]) == (1.0, 2.0)


def test_a_new_version_of_a_delta_table_is_read(
    spark: SparkSession, folder: Path, own_settings: Callable[..., Settings], run: Callable[..., Any]
) -> None:
    path = str(folder / "log")

    def append(*log: tuple[str, str, int, float]) -> None:
        frame = spark.createDataFrame(list(log), "customer string, sku string, when bigint, amount double")
        frame.write.format("delta").mode("append").save(path)

    append(("ann", "A1", 1_709_287_200_000, 1.0), ("bob", "C3", 1_709_287_200_001, 2.0))
    settings = own_settings(time_unit="ms", events={"files": "log", "format": "delta", "columns": EVENT_COLUMNS})
    (first,) = run(settings, "ingest")
    assert (first.run.counts["interactions"], first.run.counts["files"]) == (2, 2)
    (rested,) = run(settings, "ingest")
    assert rested.up_to_date
    append(("eve", "A1", 1_709_287_200_002, 3.0))
    (second,) = run(settings, "ingest")
    assert not second.up_to_date
    assert (second.run.counts["interactions"], second.run.counts["duplicates"]) == (1, 2)
    assert second.run.counts["files"] == 1
    events = events_of(settings)
    assert events["bob", "C3"].event_time == datetime(2024, 3, 1, 10, 0, 0, 1_000)
    assert len(events) == 3
    states = [row.state for row in rows(settings, "raw_files") if row.file == "log"]
    assert sorted(states) == ["version:0", "version:1"]


def test_expressions_conditions_and_files_whose_columns_differ(
    folder: Path, own_settings: Callable[..., Settings], run: Callable[..., Any]
) -> None:
    (folder / "log-1.csv").write_text("customer;sku;when;pieces;each\nann;A1;1709287200000;2;1.5\nann;C3;0;1;1\n")
    (folder / "log-2.csv").write_text(
        "each;country;pieces;when;sku;customer\n4;France;3;1709287200001;A1;bob\n4;;0;1709287200002;A1;eve\n"
        "4;;;1709287200002;A1;max\n4;;some;1709287200002;A1;tom\nbroken\n"
    )
    columns = {"user_id": "upper(customer)", "item_id": "sku", "event_time": "when", "value": "double(pieces) * each"}
    events = {
        "files": "log-*.csv",
        "separator": ";",
        "columns": {**columns, "event_type": "if(pieces > 2, 'many', 'few')"},
        "where": "try_cast(pieces as int) > 0",
    }
    with pytest.raises(SettingsError, match=r"source\.events: an expression in columns or where fails.*'some'"):
        run(own_settings(time_unit="ms", events={**events, "where": "pieces > 0"}), "ingest")
    settings = own_settings(time_unit="ms", events=events)
    (outcome,) = run(settings, "ingest")
    actual = {key: (row.event_type, row.value) for key, row in events_of(settings).items()}
    assert actual == {("ANN", "A1"): ("few", 3.0), ("BOB", "A1"): ("many", 12.0)}
    quarantined = [row for row in rows(settings, "quarantine") if row.source_table == "interactions"]
    assert sorted((*row.reasons, row.source_file) for row in quarantined) == [
        ("event_time before 1990-01-01", "log-1.csv"),
        ("malformed line", "log-2.csv"),
    ]
    read = {row.file: (row.rows, row.refused) for row in rows(settings, "raw_files")}
    assert (read["log-1.csv"], read["log-2.csv"]) == ((2, 1), (2, 1))
    assert outcome.run.counts["files"] == 3
