"""Ingest: every row is accepted, refused with its reasons, or a duplicate; doing it again changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from learn_spark.settings import Settings
from learn_spark.sources.ingest import CountsDoNotAddUp, Tally
from learn_spark.sources.location import LocationError, resolve
from learn_spark.tables.snapshot import current_version
from learn_spark.tables.workspace import Workspace
from tests.world import ITEMS, event_lines, item_lines, write_raw

TABLES = ("items", "item_index", "interactions", "quarantine")


def rows(spark: SparkSession, settings: Settings, table: str) -> list[Any]:
    return spark.read.format("delta").load(Workspace.open(settings.workspace).table(table)).collect()


def versions(settings: Settings) -> dict[str, int | None]:
    workspace = Workspace.open(settings.workspace)
    return {table: current_version(workspace.table(table)) for table in TABLES}


def test_the_standard_world_goes_in_whole(
    spark: SparkSession, small_settings: Callable[..., Settings], run: Callable[..., Any]
) -> None:
    settings = small_settings()
    (outcome,) = run(settings, "ingest")
    lines = event_lines()
    assert outcome.run.counts["rows_in"] == ITEMS + len(lines)
    assert outcome.run.counts["refused"] == outcome.run.counts["duplicates"] == 0
    found = {
        (r.user_id, r.item_id, r.value, int(r.event_time.timestamp())) for r in rows(spark, settings, "interactions")
    }
    assert found == {(u, i, float(v), int(t)) for u, i, v, t in (line.split("\t") for line in lines)}
    assert all(str(r.event_time.date()) == str(r.event_date) for r in rows(spark, settings, "interactions"))
    items = {r.item_id: r for r in rows(spark, settings, "items")}
    assert items["2"].title == "Horror story number 2"
    assert (items["2"].category, items["2"].attributes) == ("Horror Thriller", "1995")
    assert sorted(r.item_index for r in rows(spark, settings, "item_index")) == list(range(1, ITEMS + 1))


def test_bad_rows_are_refused_with_every_reason_and_again_change_nothing(
    spark: SparkSession, small_settings: Callable[..., Settings], run: Callable[..., Any], tmp_path: Path
) -> None:
    good = event_lines()
    bad = {
        "1\t2\tfive\t880000000": ["value is not a number"],
        "1\t2\tNaN\t880000000": ["value is not a number"],
        "1\t2\tInfinity\t880000000": ["value is not a number"],
        "1\t999\t3\t880000000": ["unknown item"],
        "\t2\t3\t880000000": ["no user_id"],
        "1\t\t3\t880000000": ["no item_id"],
        "1\t2\t3\tyesterday": ["no event_time"],
        "1\t2\t3\t1": ["event_time before 1990-01-01"],
        "1\t2\t3\t9999999999": ["event_time in the future"],
        "1\t2\t3\t1e300": ["no event_time"],
        "1\t2\t3\tNaN": ["no event_time"],
        "1\t2": ["malformed line"],
        "1\t2\t3\t880000000\textra": ["malformed line"],
        "\t999\tx\t1": ["event_time before 1990-01-01", "no user_id", "unknown item", "value is not a number"],
    }
    write_raw(
        tmp_path / "raw",
        items=[*item_lines(), item_lines()[4], "\tno id\t1995\tDrama", "77\ttoo\tfew"],
        events=[*good, *bad, "1\t2\tfive\t880000000", good[0], good[1], good[1]],
    )
    settings = small_settings()
    (outcome,) = run(settings, "ingest")
    counts = outcome.run.counts
    assert counts["refused"] == len(bad) + 1 + 2
    assert counts["duplicates"] == 1 + 3
    assert counts["rows_in"] == counts["rows_out"] + counts["refused"] + counts["duplicates"]
    held = {_as_line(r.raw): r for r in rows(spark, settings, "quarantine") if r.source_table == "interactions"}
    assert {line: row.reasons for line, row in held.items()} == {line: sorted(reasons) for line, reasons in bad.items()}
    twice = held["1\t2\tfive\t880000000"]
    assert (twice.occurrences, twice.run_id) == (2, outcome.run.run_id)
    items = [r for r in rows(spark, settings, "quarantine") if r.source_table == "items"]
    assert sorted(r.reasons for r in items) == [["malformed line"], ["no item_id"]]

    before = versions(settings)
    (again,) = run(settings, "ingest", force=True)
    assert versions(settings) == before
    assert again.run.counts == counts


def _as_line(raw: str) -> str:
    """The line that a quarantined row was: its JSON has the whole line if it was malformed, else its fields."""
    fields = json.loads(raw)
    names = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")
    return fields["line"] if "line" in fields else "\t".join(fields.get(name, "") for name in names)


def test_new_items_and_events_are_added_and_no_index_moves(
    spark: SparkSession, small_settings: Callable[..., Settings], run: Callable[..., Any], tmp_path: Path
) -> None:
    settings = small_settings()
    run(settings, "ingest")
    first = {r.item_id: r.item_index for r in rows(spark, settings, "item_index")}
    # "05" sorts before most ids: an index by rank would shift the others.
    changed = [line.replace("Horror story number 2\t", "Another title\t") for line in item_lines()]
    write_raw(
        tmp_path / "raw",
        items=["05\tAn early id\t1996\tDrama", *changed],
        events=[*event_lines(), "1\t05\t4\t890000000"],
    )
    (outcome,) = run(settings, "ingest")
    assert not outcome.rested
    second = {r.item_id: r.item_index for r in rows(spark, settings, "item_index")}
    assert second == {**first, "05": ITEMS + 1}
    assert {r.item_id: r.title for r in rows(spark, settings, "items")}["2"] == "Another title"
    assert len(rows(spark, settings, "interactions")) == len(event_lines()) + 1


def test_invalid_utf8_and_a_byte_order_mark(
    spark: SparkSession, small_settings: Callable[..., Settings], run: Callable[..., Any], tmp_path: Path
) -> None:
    settings = small_settings()
    path = tmp_path / "raw" / "ml-100k.item"
    text = path.read_text()
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() + b"40\tbad \xff\xfe title\t1995\tDrama\r\n")
    (outcome,) = run(settings, "ingest")
    assert outcome.run.counts["items"] == ITEMS
    (refused,) = rows(spark, settings, "quarantine")
    assert refused.reasons == ["not UTF-8"]
    assert {r.attributes for r in rows(spark, settings, "items")} == {"1995"}


def test_missing_columns_files_and_packages_are_named(
    tmp_path: Path, small_settings: Callable[..., Settings], run: Callable[..., Any]
) -> None:
    settings = small_settings()
    path = tmp_path / "raw" / "ml-100k.inter"
    path.write_text(path.read_text().replace("rating:float", "stars:float"))
    with pytest.raises(LocationError, match=r"no column rating:float in its header \(user_id:token"):
        run(settings, "ingest")
    path.unlink()
    with pytest.raises(LocationError, match=r"there is no ml-100k\.inter"):
        run(settings, "ingest")
    with pytest.raises(LocationError, match="'nopackage' is not installed"):
        resolve("package:nopackage/data")
    with pytest.raises(LocationError, match="leads out of"):
        resolve("package:yaml/../../..")


def test_counts_that_do_not_add_up_are_an_error() -> None:
    Tally(read=10, accepted=6, refused=3, duplicates=1).check("items")
    with pytest.raises(CountsDoNotAddUp, match=r"10 rows were read, but 6 accepted \+ 2 refused \+ 1 duplicates = 9"):
        Tally(read=10, accepted=6, refused=2, duplicates=1).check("items")
