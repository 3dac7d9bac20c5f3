"""Own data as two CSV files: quotes, missing columns, broken lines, ISO times, gzip."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession

from learn_spark.errors import SettingsError
from learn_spark.settings import Settings, load_settings
from learn_spark.sources.location import LocationError

ITEMS = 'sku,name,dept,cost\nA1,"Lamp, ""round""",Home,12.50\nB2,Rug,Home,-3\nC3,,Home,\nD4,Vase\n'
LOG = (
    "customer,sku,when,amount\n"
    "ann,A1,2024-03-01 10:00:00,1\n"
    "ann,C3,2024-03-01T11:30:00Z,2\n"
    "bob,A1,2024-03-02,1\n"
    "bob,B2,2024-03-02 09:00:00,1\n"
    "bob,A1,not a time,1\n"
)
SOURCE: dict[str, Any] = {
    "format": "csv",
    "time_unit": "iso",
    "event_type": "purchase",
    "items": {
        "file": "items.csv.gz",
        "columns": {"item_id": "sku", "title": "name", "category": "dept", "price": "cost"},
    },
    "events": {
        "file": "log.csv",
        "columns": {"user_id": "customer", "item_id": "sku", "event_time": "when", "value": "amount"},
    },
}


@pytest.fixture
def csv_settings(tmp_path: Path, small_settings: Callable[..., Settings]) -> Callable[..., Settings]:
    folder = tmp_path / "csv"
    folder.mkdir()
    (folder / "items.csv.gz").write_bytes(gzip.compress(ITEMS.encode()))
    (folder / "log.csv").write_text(LOG)

    def make(**source: Any) -> Settings:
        path = tmp_path / "own.yaml"
        tree = yaml.safe_load((tmp_path / "small.yaml").read_text())
        path.write_text(yaml.safe_dump({**tree, "source": {**SOURCE, "path": str(folder), **source}}))
        return load_settings(path)

    return make


def test_own_files_go_in(spark: SparkSession, csv_settings: Callable[..., Settings], run: Callable[..., Any]) -> None:
    settings = csv_settings()
    (outcome,) = run(settings, "ingest")
    assert (outcome.run.counts["items"], outcome.run.counts["interactions"], outcome.run.counts["refused"]) == (2, 3, 4)

    def rows(table: str) -> list[Any]:
        return spark.read.format("delta").load(f"{settings.workspace}/tables/{table}").collect()

    items = {r.item_id: r for r in rows("items")}
    assert (items["A1"].title, items["A1"].price, items["A1"].brand) == ('Lamp, "round"', 12.5, None)
    assert items["C3"].title is None
    events = {(r.user_id, r.item_id): r for r in rows("interactions")}
    assert events["ann", "C3"].event_time.replace(tzinfo=UTC) == datetime(2024, 3, 1, 11, 30, tzinfo=UTC)
    assert {r.event_type for r in events.values()} == {"purchase"}
    refused = {(r.source_table, tuple(r.reasons)): json.loads(r.raw) for r in rows("quarantine")}
    assert refused["items", ("price is negative",)]["sku"] == "B2"
    assert refused["items", ("malformed line",)] == {"line": "D4,Vase"}
    assert refused["interactions", ("unknown item",)]["sku"] == "B2"
    assert refused["interactions", ("no event_time",)]["when"] == "not a time"


def test_what_is_described_wrongly_is_named(csv_settings: Callable[..., Settings], run: Callable[..., Any]) -> None:
    wrong = {**SOURCE["events"], "columns": {**SOURCE["events"]["columns"], "value": "sum"}}
    with pytest.raises(LocationError, match=r"no column sum in its header \(customer, sku, when, amount\)"):
        run(csv_settings(events=wrong), "ingest")
    with pytest.raises(LocationError, match=r"there is no \.\./small\.yaml"):
        run(csv_settings(events={**SOURCE["events"], "file": "../small.yaml"}), "ingest")
    for change, expected in (
        ({"items": None}, "needs items"),
        ({"events": {"file": "log.csv", "columns": {"item_id": "sku"}}}, "must name event_time, user_id"),
        ({"items": {"file": "i", "columns": {"item_id": "sku", "colour": "c"}}}, "items.columns has colour"),
        ({"format": "movielens-100k"}, "items is for format csv"),
    ):
        with pytest.raises(SettingsError, match=expected):
            csv_settings(**change)
