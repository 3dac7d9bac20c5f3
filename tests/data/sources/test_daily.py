"""Daily files of a shop: all at once, day by day, shuffled or twice, the tables end up the same."""

from __future__ import annotations

import gzip
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace
from tests.stored import stored_rows
from tests.world import write_config

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
UK = "United Kingdom"
DAYS = {
    "2010-12-01": [
        f"536365,85123A,WHITE HANGING HEART,6,2010-12-01 08:26:00,2.55,17850.0,{UK}",
        f'536365,71053,"LANTERN, ""WHITE""",6,2010-12-01 08:26:00,3.39,17850.0,{UK}',
        f"536365,POST,POSTAGE,1,2010-12-01 08:26:00,18.0,17850.0,{UK}",
        f"536366,22633,HAND WARMER,6,2010-12-01 08:28:00,1.85,,{UK}",
    ],
    "2010-12-02": [
        # A new description and price; the same line twice; two lines of one product in one invoice.
        f"536400,85123A,CREAM HANGING HEART,2,2010-12-02 09:00:00,2.95,13047.0,{UK}",
        f"536400,85123A,CREAM HANGING HEART,2,2010-12-02 09:00:00,2.95,13047.0,{UK}",
        f"536400,71053,WHITE LANTERN,1,2010-12-02 09:00:00,3.39,13047.0,{UK}",
        f"536400,71053,WHITE LANTERN,12,2010-12-02 09:00:00,3.09,13047.0,{UK}",
        # Items without a price until one can be read, four days later; one line has another fault besides.
        f"536401,22005,PURSE,3,2010-12-02 10:00:00,ten,13047.0,{UK}",
        f"536401,22006,SCARF,few,2010-12-02 10:00:00,ten,13047.0,{UK}",
        f"536401,22007,NEVER PRICED,1,2010-12-02 10:00:00,-5,13047.0,{UK}",
    ],
    "2010-12-03": [
        f"C536500,85123A,WHITE HANGING HEART,-2,2010-12-03 11:00:00,2.55,17850.0,{UK}",
        "536501,22633,HAND WARMER,many,2010-12-03 11:30:00,1.85,12583.0,France",
        "536502,22633,HAND WARMER,4,yesterday,1.85,12583.0,France",
        "536503,22633,HAND WARMER,4,2010-12-03 12:00:00,1.85,12583.0,France",
        "536504,22633,too,few",
    ],
    "2010-12-05": [
        # Two names for one product in one minute.
        "536600,22960,JAM MAKING SET,1,2010-12-05 10:00:00,4.25,12583.0,France",
        f"536601,22960,JAM SET,1,2010-12-05 10:00:00,4.25,17850.0,{UK}",
        f"536602,BANK CHARGES,Bank Charges,1,2010-12-05 10:05:00,15.0,17850.0,{UK}",
        f"536603,22633,HAND WARMER,NaN,2010-12-05 10:05:00,1.85,17850.0,{UK}",
    ],
    "2010-12-06": [
        "536700,22005,PURSE,1,2010-12-06 08:00:00,10.0,14911.0,EIRE",
        "536700,22006,SCARF,1,2010-12-06 08:00:00,10.0,14911.0,EIRE",
        # The correction of the first day's line.
        f"536365,85123A,WHITE HANGING HEART,5,2010-12-06 08:26:00,2.55,17850.0,{UK}",
    ],
    "2010-12-07": [
        "536800,85123A,,1,2010-12-07 08:00:00,2.75,14911.0,EIRE",
        "536801,22960,JAM MAKING SET,0,2010-12-07 08:30:00,0.0,12583.0,France",
        # The same bad line as on another day.
        "536501,22633,HAND WARMER,many,2010-12-03 11:30:00,1.85,12583.0,France",
    ],
    "2010-12-08": [
        # An old price comes late, and an old state of an event.
        "536300,71053,OLD LANTERN,1,2010-11-30 08:00:00,1.0,14911.0,EIRE",
        "536700,22005,PURSE,9,2010-12-06 07:00:00,10.0,14911.0,EIRE",
        "C536900,22960,JAM MAKING SET,-1,2010-12-08 08:00:00,4.25,12583.0,France",
    ],
    "2010-12-09": [
        f"537000,22005,PURSE,2,2010-12-09 08:00:00,9.5,13047.0,{UK}",
        f"537000,22005,PURSE,two,2010-12-09 08:00:00,9.5,13047.0,{UK}",
        f"537000,22005,PURSE,two,2010-12-09 08:00:00,9.5,13047.0,{UK}",
    ],
}
TABLES = ("items", "interactions", "quarantine", "item_index")


def deliver(folder: Path, day: str) -> None:
    """Write the day's file; one that is there already is touched, as a second delivery is."""
    path = folder / f"{day}.csv.gz"
    folder.mkdir(exist_ok=True)
    if path.exists():
        moved = path.stat().st_mtime_ns + 1_000_000_000
        os.utime(path, ns=(moved, moved))
        return
    path.write_bytes(gzip.compress("".join(f"{line}\r\n" for line in [HEADER, *DAYS[day]]).encode()))


@pytest.fixture
def shop(tmp_path: Path) -> Callable[[str], tuple[Path, Settings]]:
    """A folder and settings of a workspace of its own."""

    def make(name: str) -> tuple[Path, Settings]:
        folder = tmp_path / f"{name}-raw"
        path = write_config(tmp_path / f"{name}.yaml", raw=folder, workspace=tmp_path / name, model=tmp_path)
        tree = yaml.safe_load(path.read_text())
        rules = {f"{table}.refused_share": {"most": None} for table in ("items", "interactions")}
        source = {"format": "online-retail", "path": str(folder)}
        path.write_text(yaml.safe_dump({**tree, "source": source, "quality": {"rules": rules}}))
        return folder, load_settings(path)

    return make


def contents(settings: Settings) -> dict[str, list[str]]:
    """The tables as sorted rows, without what names the run or the order of arrival."""
    actual = {}
    for table in TABLES:
        rows = [row.asDict() for row in stored_rows(settings.workspace, table)]
        for row in rows:
            row.pop("run_id", None)
        if table == "item_index":
            assert sorted(row.pop("item_index") for row in rows) == list(range(1, len(rows) + 1))
        actual[table] = sorted(map(repr, rows))
    return actual


def groupings(seed: int) -> list[list[str]]:
    """Every day twice, in no order, in three runs; the second has some days anew and some again."""
    chance = random.Random(seed)
    days = chance.sample(list(DAYS), len(DAYS))
    cut = chance.randint(2, len(days) - 2)
    first, rest = days[:cut], days[cut:]
    return [first, chance.sample(days, len(days)), rest]


def test_every_way_of_delivery_gives_the_same_tables(
    shop: Callable[[str], tuple[Path, Settings]], run: Callable[..., Any]
) -> None:
    def delivered(name: str, runs: Sequence[Sequence[str]]) -> Settings:
        folder, settings = shop(name)
        for days in runs:
            for day in days:
                deliver(folder, day)
            (outcome,) = run(settings, "ingest")
            assert outcome.run.counts["files"] == len(days)
        return settings

    at_once = delivered("at_once", [list(DAYS)])
    expected = contents(at_once)
    check_at_once(at_once)
    ways = {"in_order": [[day] for day in DAYS], "shuffled": groupings(1)}
    for name, runs in ways.items():
        settings = delivered(name, runs)
        actual = contents(settings)
        for table in TABLES:
            assert actual[table] == expected[table], (name, table)

    def versions() -> list[int | None]:
        return [current_version(Workspace.open(settings.workspace).table(table)) for table in (*TABLES, "raw_files")]

    before = versions()
    (rested,) = run(settings, "ingest")
    assert rested.up_to_date
    assert versions() == before


def check_at_once(settings: Settings) -> None:
    """What must stand in the tables, told from the lines by hand."""

    def rows(table: str) -> list[Any]:
        return stored_rows(settings.workspace, table)

    items = {row.item_id: (row.title, row.price) for row in rows("items")}
    assert items == {
        "85123A": (None, 2.75),
        "71053": ("WHITE LANTERN", 3.39),
        "22633": ("HAND WARMER", 1.85),
        "22960": ("JAM MAKING SET", 4.25),
        "22005": ("PURSE", 9.5),
        "22006": ("SCARF", 10.0),
        "22007": ("NEVER PRICED", None),
    }
    events = {row.event_id: (row.user_id, row.event_type, row.value) for row in rows("interactions")}
    assert events["536365/85123A"] == ("17850", "purchase", 5.0)
    assert events["536400/71053"] == ("13047", "purchase", 12.0)
    assert events["536400/85123A"] == ("13047", "purchase", 2.0)
    assert events["C536500/85123A"] == ("17850", "return", 2.0)
    assert events["536401/22005"] == ("13047", "purchase", 3.0)
    assert events["536700/22005"] == ("14911", "purchase", 1.0)
    unread = {"536401/22006", "536501/22633", "536603/22633"}
    assert {key for key, (_, _, value) in events.items() if value is None} == unread
    assert events["537000/22005"] == ("13047", "purchase", 2.0)
    assert len(events) == 17 + len(unread)
    refused = {(row.source_table, tuple(row.reasons), row.occurrences, row.source_file) for row in rows("quarantine")}
    assert refused == {
        ("items", ("malformed line",), 1, "2010-12-03.csv.gz"),
        ("interactions", ("event_time is not a time",), 1, "2010-12-03.csv.gz"),
        ("interactions", ("malformed line",), 1, "2010-12-03.csv.gz"),
    }
