"""Values as exports have them: times, ids, optional fields; what is refused, what becomes null, and what is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyspark.sql import SparkSession

from learn_spark.core.errors import SettingsError
from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace
from tests.data.sources.landed import landed_rows
from tests.stored import stored_rows
from tests.world import write_config

TIME = "2024-03-01 10:00:00"
SECONDS = 1_709_287_200
ITEM_COLUMNS = {"item_id": "sku", "title": "name", "brand": "brand", "price": "cost", "updated_at": "changed"}
EVENT_COLUMNS = {"user_id": "u", "item_id": "sku", "value": "n", "event_time": "t"}
UNBOUND = {
    f"{table}.{rule}": {"most": None, "least": None}
    for table, rule in (("items", "refused_share"), ("interactions", "refused_share"), ("interactions", "volume"))
}


@pytest.fixture
def shop(tmp_path: Path) -> Callable[..., Settings]:
    """Settings over items.csv and log* in the folder ``own``; ``events`` and ``source`` change them."""
    folder = tmp_path / "own"
    folder.mkdir()
    path = write_config(tmp_path / "own.yaml", raw=folder, workspace=tmp_path / "workspace", model=tmp_path)
    tree = yaml.safe_load(path.read_text())

    def make(events: dict[str, Any] | None = None, **source: Any) -> Settings:
        described = {
            "format": "files",
            "path": str(folder),
            "items": {"files": "items.csv", "columns": ITEM_COLUMNS},
            "events": {"files": "log*.csv", "columns": EVENT_COLUMNS, **(events or {})},
            **source,
        }
        path.write_text(yaml.safe_dump({**tree, "source": described, "quality": {"rules": UNBOUND}}))
        return load_settings(path)

    return make


def write(path: Path, header: str, *lines: str) -> None:
    path.write_text("\n".join((header, *lines)) + "\n", encoding="utf-8", newline="")


def rows(settings: Settings, table: str) -> list[Any]:
    return stored_rows(settings.workspace, table)


def refused(settings: Settings, key: str = "u") -> dict[str, list[str]]:
    return {json.loads(row.raw)[key]: row.reasons for row in rows(settings, "quarantine")}


TIMES = {
    "date": ("2024-03-01", "2024-03-01 00:00:00"),
    "blank": ("2024-03-01 10:30:00", "2024-03-01 10:30:00"),
    "short": ("2024-3-1 10:30", "2024-03-01 10:30:00"),
    "zone": ("2024-03-01T10:30:00+02:00", "2024-03-01 08:30:00"),
    "nanoseconds": ("2024-03-01T10:30:00.123456789Z", "2024-03-01 10:30:00.123456"),
    "dots": ("01.03.2024 10:30", "2024-03-01 10:30:00"),
    "clock": ("10:30:00", None),
    "clock and T": ("T10:30", None),
    "year": ("2024", None),
    "month": ("2024-03", None),
    "number": ("1709287200", None),
    "slashes": ("03/11/2024", None),
    "no such day": ("2024-02-30", None),
    "year 0": ("0000-01-01 00:00:00", None),
}


def test_text_is_a_time_only_with_a_date(
    shop: Callable[..., Settings], run: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    write(folder / "items.csv", "sku,name,brand,cost,changed", "A,Lamp,,,")
    write(folder / "log.csv", "u,sku,n,t", *(f"{who},A,1,{text}" for who, (text, _) in TIMES.items()), "none,A,1,")
    settings = shop(time_unit="iso", time_formats=["dd.MM.yyyy HH:mm"])
    (outcome,) = run(settings, "ingest")
    read = {row.user_id: str(row.event_time) for row in rows(settings, "interactions")}
    assert read == {who: time for who, (_, time) in TIMES.items() if time is not None}
    wrong = {who: ["event_time is not a time"] for who, (_, time) in TIMES.items() if time is None}
    assert refused(settings) == {**wrong, "none": ["no event_time"]}
    assert outcome.run.counts["refused"] == len(wrong) + 1


def test_a_timestamp_is_a_time_under_every_unit(
    spark: SparkSession, shop: Callable[..., Settings], run: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    write(folder / "items.csv", "sku,name,brand,cost,changed", f"A,Lamp,,,{TIME}")
    times = [datetime(2024, 3, 1, 10, 30, 0, 250_000), None]
    table = pa.table(
        {"u": ["ann", "bob"], "sku": ["A", "A"], "n": [1.5, 2.0], "t": pa.array(times, pa.timestamp("us"))}
    )
    pq.write_table(table, folder / "log.parquet")
    for unit in ("s", "ms", "us", "iso"):
        settings = shop({"files": "log.parquet", "format": "parquet"}, time_unit=unit)
        if unit == "iso":
            run(settings, "ingest")
            items, good, bad = (rows(settings, table) for table in ("items", "interactions", "quarantine"))
        else:
            items, good, bad = landed_rows(spark, settings, tmp_path / unit)
        assert [event.event_time for event in good] == [times[0]], unit
        assert [str(row.updated_at) for row in items] == [TIME], unit
        assert {json.loads(row.raw)["u"]: row.reasons for row in bad} == {"bob": ["no event_time"]}, unit


def test_a_unit_that_clashes_with_the_data_stops_before_anything_is_written(
    shop: Callable[..., Settings], run: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    write(folder / "items.csv", "sku,name,brand,cost,changed", "A,Lamp,,,")
    cases = [
        ("s", [SECONDS * 1_000, SECONDS * 1_000 + 1, SECONDS], "time_unit: ms"),
        ("s", [SECONDS * 1_000_000], "time_unit: us"),
        ("ms", [SECONDS], "time_unit: s"),
        ("iso", [SECONDS, SECONDS + 5], "time_unit: s"),
        ("iso", ["28.11.2024 09:00", "3.1.2024 10:00", "10:30:00"], 'time_formats: ["d.M.yyyy H:mm"]'),
        ("iso", ["03/11/2024", "03/28/2024"], 'time_formats: ["M/d/yyyy"]'),
        ("s", ["03/11/2024"], "may be the other way round"),
        ("us", [SECONDS * 10**9], "timestamp_micros"),
    ]
    for unit, times, advice in cases:
        write(folder / "log.csv", "u,sku,n,t", *(f"ann,A,1,{time}" for time in times))
        settings = shop(time_unit=unit)
        with pytest.raises(SettingsError) as caught:
            run(settings, "ingest")
        sentence = str(caught.value)
        assert sentence.startswith("source.events.columns.event_time: "), sentence
        assert advice in sentence, sentence
        workspace = Workspace.open(settings.workspace)
        assert [current_version(workspace.table(table)) for table in ("items", "interactions", "quarantine")] == [0] * 3
    # One wrong time among good ones is a refused row.
    write(folder / "log.csv", "u,sku,n,t", f"ann,A,1,{SECONDS}", f"bob,A,1,{SECONDS * 1_000}", f"eve,A,1,{SECONDS}")
    settings = shop(time_unit="s")
    run(settings, "ingest")
    assert refused(settings) == {"bob": ["event_time is not a time"]}


def test_formats_of_times_are_checked_with_the_settings(shop: Callable[..., Settings]) -> None:
    for pattern in ("HH:mm", "dd.MM.YYYY", "not a pattern", "dd.MM.yyyy'T", "yyyy-DDD"):
        with pytest.raises(SettingsError, match="time_formats"):
            shop(time_formats=[pattern])


def test_ids_of_float_columns_and_ids_with_blanks(
    shop: Callable[..., Settings], run: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    good = ["12345678", "A\t", "\u00a0B", "C\u3000", "\ufeffD", "1E5A", "12.50"]
    write(folder / "items.csv", "sku,name,brand,cost,changed", *(f"{sku},Lamp,,," for sku in good), "1.2E+05,Lost,,,")
    users = [12345678.0, 9.0, 2.0**53, 1e20, 1.5e-7, float("nan"), None, -20000000.0, 123456789012345.0]
    table = pa.table(
        {
            "u": pa.array(users, pa.float64()),
            "sku": pa.array([12345678.0] * len(users), pa.float64()),
            "n": pa.array([1.0] * len(users), pa.float64()),
            "t": pa.array([datetime(2024, 3, 1)] * len(users), pa.timestamp("us")),
        }
    )
    pq.write_table(table, folder / "log.parquet")
    # A float of 32 bits has not all whole numbers from 2^24 on; of one type with the other file it is text.
    singles = pa.array([16777214.0, 16777216.0, 123.0], pa.float32())
    three = table.slice(0, 3)
    pq.write_table(three.set_column(0, "u", singles), folder / "log-2.parquet")
    settings = shop({"files": "log*.parquet", "format": "parquet"})
    run(settings, "ingest")
    assert {row.item_id for row in rows(settings, "items")} == {"12345678", "A", "B", "C", "D", "1E5A", "12.50"}
    read = sorted(row.user_id for row in rows(settings, "interactions"))
    assert read == ["-20000000", "123", "12345678", "123456789012345", "16777214", "9"]
    reasons = [row.reasons for row in rows(settings, "quarantine") if row.source_table == "interactions"]
    assert sorted(reasons) == [["no user_id"]] * 2 + [["user_id lost its digits"]] * 4


def test_a_broken_optional_field_costs_neither_the_item_nor_its_orders(
    shop: Callable[..., Settings], run: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    later = 9_999_999_999
    broken = {
        "A": ("Lamp,Lux,'9,90',", "price is not a number"),
        "B": ("Lamp,Lux,EUR 9.90,", "price is not a number"),
        "C": ("Lamp,Lux,-3,", "price is negative"),
        "D": ("Lamp,Lux,Infinity,", "price is not a number"),
        "E": ("Lamp,Lux,1,soon", "updated_at is not a time"),
        "F": (f"Lamp,Lux,1,{later}", "updated_at in the future"),
        "G": ("Lamp,L\udcffx,1,", "brand is not UTF-8"),
    }
    lines = [f"{sku},{line}".replace("'", '"') for sku, (line, _) in broken.items()]
    text = "\n".join(["sku,name,brand,cost,changed", *lines, f"H,Lamp,Lux,1,{SECONDS}", ""])
    (folder / "items.csv").write_bytes(text.encode(errors="surrogateescape"))
    amounts = {"ann": "five", "bob": "NaN", "eve": "2"}
    orders = [f"ann,{sku},1,{SECONDS}" for sku in [*broken, "H"]]
    write(folder / "log.csv", "u,sku,n,t", *orders, *(f"{u},H,{n},{SECONDS + 60}" for u, n in amounts.items()))
    settings = shop()
    (outcome,) = run(settings, "ingest")
    assert rows(settings, "quarantine") == []
    items = {row.item_id: row for row in rows(settings, "items")}
    assert items.keys() == {*broken, "H"}
    assert {sku: row.price for sku, row in items.items()} == dict.fromkeys("ABCD") | dict.fromkeys("EFGH", 1.0)
    assert {sku for sku, row in items.items() if row.updated_at is not None} == {"H"}
    assert {sku: row.brand for sku, row in items.items()} == dict.fromkeys([*broken, "H"], "Lux") | {"G": None}
    values = sorted((row.user_id, row.value or 0) for row in rows(settings, "interactions"))
    assert values == sorted([("ann", 1.0)] * 8 + [("ann", 0), ("bob", 0), ("eve", 2.0)])
    assert outcome.run.counts["fields_nulled"] == len(broken) + 2
