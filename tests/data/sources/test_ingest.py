"""Ingest: every row is accepted, refused with its reasons, or a duplicate; doing it again changes nothing."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession

from learn_spark.core.errors import GateError, RowCountError
from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.sources import ingest
from learn_spark.data.sources.ingest import Tally
from learn_spark.data.sources.location import LocationError, resolve
from learn_spark.data.sources.source import UnreadableFileError
from tests.data.sources.landed import landed_rows
from tests.stored import stored_rows
from tests.world import ITEMS, event_lines, item_lines, write_config, write_raw

TABLES = ("items", "item_index", "interactions", "quarantine")


def rows(settings: Settings, table: str) -> list[Any]:
    return stored_rows(settings.workspace, table)


def versions(settings: Settings) -> dict[str, int | None]:
    workspace = Workspace.open(settings.workspace)
    return {table: current_version(workspace.table(table)) for table in TABLES}


def test_the_standard_world_goes_in_whole(small_settings: Callable[..., Settings], run: Callable[..., Any]) -> None:
    settings = small_settings()
    (outcome,) = run(settings, "ingest")
    lines = event_lines()
    assert outcome.run.counts["rows_in"] == ITEMS + len(lines)
    assert outcome.run.counts["refused"] == outcome.run.counts["duplicates"] == 0
    actual = {(r.user_id, r.item_id, r.value, int(r.event_time.timestamp())) for r in rows(settings, "interactions")}
    assert actual == {(u, i, float(v), int(t)) for u, i, v, t in (line.split("\t") for line in lines)}
    assert all(str(r.event_time.date()) == str(r.event_date) for r in rows(settings, "interactions"))
    items = {r.item_id: r for r in rows(settings, "items")}
    assert items["2"].title == "Horror story number 2"
    assert (items["2"].category, items["2"].attributes) == ("Horror Thriller", "1995")
    indexes = {r.item_index: r.item_id for r in rows(settings, "item_index")}
    by_id = sorted(items, key=str.encode)
    assert [indexes[n] for n in range(1, ITEMS + 1)] == by_id
    assert len(indexes) == ITEMS


def test_bad_rows_are_refused_with_every_reason_and_again_change_nothing(
    small_settings: Callable[..., Settings], run: Callable[..., Any], tmp_path: Path
) -> None:
    good = event_lines()
    bad = {
        "1\t2\t5\tnoon": ["event_time is not a time"],
        "1\t999\t3\t880000000": ["unknown item"],
        "\t2\t3\t880000000": ["no user_id"],
        "1\t\t3\t880000000": ["no item_id"],
        "1\t2\t3\tyesterday": ["event_time is not a time"],
        "1\t2\t3\t1": ["event_time before 1990-01-01"],
        "1\t2\t3\t9999999999": ["event_time in the future"],
        "1\t2\t3\t1e300": ["event_time is not a time"],
        "1\t2\t3\tNaN": ["event_time is not a time"],
        "1\t2\t3\t": ["no event_time"],
        "1\t2": ["malformed line"],
        "1\t2\t3\t880000000\textra": ["malformed line"],
        "\t999\tx\t1": ["event_time before 1990-01-01", "no user_id", "unknown item"],
    }
    write_raw(
        tmp_path / "raw",
        items=[*item_lines(), item_lines()[4], "\tno id\t1995\tDrama", "77\ttoo\tfew"],
        events=[*good, *bad, "1\t2\t5\tnoon", good[0], good[1], good[1]],
    )
    settings = small_settings()
    (outcome,) = run(settings, "ingest")
    counts = outcome.run.counts
    assert counts["refused"] == len(bad) + 1 + 2
    assert counts["duplicates"] == 1 + 3
    assert counts["rows_in"] == counts["rows_out"] + counts["refused"] + counts["duplicates"]
    quarantined = {_as_line(r.raw): r for r in rows(settings, "quarantine") if r.source_table == "interactions"}
    assert {line: row.reasons for line, row in quarantined.items()} == {
        line: sorted(reasons) for line, reasons in bad.items()
    }
    twice = quarantined["1\t2\t5\tnoon"]
    assert (twice.occurrences, twice.run_id) == (2, outcome.run.run_id)
    items = [r for r in rows(settings, "quarantine") if r.source_table == "items"]
    assert sorted(r.reasons for r in items) == [["malformed line"], ["no item_id"]]

    before = versions(settings)
    (again,) = run(settings, "ingest", force=True)
    assert versions(settings) == before
    assert again.run.counts["rows_in"] == counts["rows_in"]
    assert again.run.counts["refused"] == counts["refused"]
    assert again.run.counts["rows_out"] == again.run.counts["items"] == again.run.counts["interactions"] == 0
    assert again.run.counts["duplicates"] == counts["rows_in"] - counts["refused"]


def _as_line(raw: str) -> str:
    """The line that a quarantined row was: its JSON has the whole line if it was malformed, else its fields."""
    fields = json.loads(raw)
    names = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")
    return fields["line"] if "line" in fields else "\t".join(fields.get(name, "") for name in names)


def test_new_items_and_events_are_added_and_no_index_moves(
    small_settings: Callable[..., Settings], run: Callable[..., Any], prepared: Callable[..., None], tmp_path: Path
) -> None:
    settings = small_settings()
    prepared("ingest")
    first = {r.item_id: r.item_index for r in rows(settings, "item_index")}
    # "05" sorts before most ids: an index by rank would shift the others.
    changed = [line.replace("Horror story number 2\t", "Another title\t") for line in item_lines()]
    write_raw(
        tmp_path / "raw",
        items=["05\tAn early id\t1996\tDrama", *changed],
        events=[*event_lines(), "1\t05\t4\t890000000"],
    )
    (outcome,) = run(settings, "ingest")
    assert not outcome.up_to_date
    second = {r.item_id: r.item_index for r in rows(settings, "item_index")}
    assert second == {**first, "05": ITEMS + 1}
    assert {r.item_id: r.title for r in rows(settings, "items")}["2"] == "Another title"
    assert len(rows(settings, "interactions")) == len(event_lines()) + 1


def test_invalid_utf8_and_a_byte_order_mark(
    small_settings: Callable[..., Settings], run: Callable[..., Any], tmp_path: Path
) -> None:
    settings = small_settings()
    path = tmp_path / "raw" / "ml-100k.item"
    text = path.read_text()
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() + b"40\tbad \xff\xfe title\t1995\tDrama\r\n")
    (outcome,) = run(settings, "ingest")
    assert outcome.run.counts["items"] == ITEMS + 1
    assert rows(settings, "quarantine") == []
    assert [r.title for r in rows(settings, "items") if r.item_id == "40"] == [None]
    assert {r.attributes for r in rows(settings, "items")} == {"1995"}


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
    with pytest.raises(LocationError, match="is outside the package"):
        resolve("package:yaml/../../..")


def test_counts_that_do_not_add_up_are_an_error() -> None:
    Tally(read=10, accepted=6, refused=3, duplicates=1).check("items")
    with pytest.raises(RowCountError, match=r"10 rows were read, but 6 accepted \+ 2 refused \+ 1 duplicates = 9"):
        Tally(read=10, accepted=6, refused=2, duplicates=1).check("items")


ITEM_HEADER = "sku,name,cost,changed"
EVENT_HEADER = "customer,sku,amount,when"
MARCH = 1_709_287_200


@pytest.fixture
def settings_for(tmp_path: Path) -> Callable[..., Settings]:
    """Settings over items*.csv* and log*.csv* in the folder ``own``, of so few rows that shares say nothing."""
    folder = tmp_path / "own"
    folder.mkdir()
    path = write_config(tmp_path / "own.yaml", raw=folder, workspace=tmp_path / "workspace", model=tmp_path)
    tree = yaml.safe_load(path.read_text())
    items = {"item_id": "sku", "title": "name", "price": "cost", "updated_at": "changed"}
    events = {"user_id": "customer", "item_id": "sku", "value": "amount", "event_time": "when"}

    def make(**source: Any) -> Settings:
        described = {
            "format": "files",
            "path": str(folder),
            "items": {"files": "items*.csv*", "columns": items},
            "events": {"files": "log*.csv*", "columns": events},
            **source,
        }
        unsaid = ("items.refused_share", "interactions.refused_share", "interactions.volume")
        rules = {name: {"most": None} for name in unsaid}
        path.write_text(yaml.safe_dump({**tree, "source": described, "quality": {"rules": rules}}))
        return load_settings(path)

    return make


def write(path: Path, header: str, *lines: str) -> Path:
    text = "".join(f"{line}\n" for line in (header, *lines)).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def test_a_file_that_cannot_be_read_stops_all_or_is_skipped(
    settings_for: Callable[..., Settings], run: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    write(folder / "items.csv", ITEM_HEADER, "A,Lamp,1,", "B,Rug,2,")
    write(folder / "log-0.csv", EVENT_HEADER, f"ann,A,1,{MARCH}")
    settings = settings_for()
    run(settings, "ingest")
    before = versions(settings)
    write(folder / "log-1.csv", EVENT_HEADER, f"bob,B,1,{MARCH}")
    chance = random.Random(3)
    many = [f"{chance.randrange(10**9)},A,{chance.random()},{MARCH}" for _ in range(20_000)]
    complete = write(folder / "log-2.csv.gz", EVENT_HEADER, *many).read_bytes()
    broken = {
        "log-2.csv.gz": complete[: len(complete) // 2],
        "log-3.csv": b"",
        "log-4.csv": b"customer,sku,when\nann,A,1\n",
    }
    why = {"log-2.csv.gz": "cannot be read", "log-3.csv": "is empty", "log-4.csv": "no column amount in its header"}
    for name, content in broken.items():
        (folder / "log-2.csv.gz").unlink(missing_ok=True)
        (folder / name).write_bytes(content)
        with pytest.raises(UnreadableFileError, match=f"{name}: .*{why[name]}"):
            run(settings, "ingest")
        assert versions(settings) == before
        (folder / name).unlink()
    for name, content in broken.items():
        (folder / name).write_bytes(content)
    skipping = settings_for(unreadable="skip")
    (outcome,) = run(skipping, "ingest")
    assert (outcome.run.counts["files_skipped"], outcome.run.counts["files"]) == (3, 1)
    assert {r.user_id for r in rows(skipping, "interactions")} == {"ann", "bob"}
    errors = {r.file: r.error for r in rows(skipping, "raw_files")}
    assert {name for name, error in errors.items() if error} == set(why)
    assert all(text in errors[name] for name, text in why.items())
    # Delivered again, whole this time.
    (folder / "log-2.csv.gz").write_bytes(complete)
    (outcome,) = run(skipping, "ingest")
    counts = outcome.run.counts
    assert (counts["files"], counts["files_skipped"], counts["rows_in"]) == (1, 0, len(many))
    assert counts["interactions"] == len(set(many))
    # What was skipped before is complained about once more when nothing may be skipped.
    with pytest.raises(UnreadableFileError, match=r"log-3\.csv"):
        run(settings_for(unreadable="stop"), "ingest")
    (folder / "log-3.csv").unlink(), (folder / "log-4.csv").unlink()
    # A header and no rows is a file like others.
    write(folder / "log-5.csv", EVENT_HEADER)
    (outcome,) = run(settings_for(unreadable="stop"), "ingest")
    counts = outcome.run.counts
    assert (counts["files"], counts["rows_in"], counts["files_skipped"]) == (1, 0, 0)


def test_only_new_files_are_read(
    settings_for: Callable[..., Settings], run: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    write(folder / "items.csv", ITEM_HEADER, "A,Lamp,1,")
    write(folder / "log-1.csv", EVENT_HEADER, f"ann,A,1,{MARCH}", "ann,A,1,x")
    settings = settings_for()
    run(settings, "ingest")
    write(folder / "log-2.csv.gz", EVENT_HEADER, f"bob,A,1,{MARCH}", f"eve,A,1,{MARCH}", f"ann,A,1,{MARCH}")
    (outcome,) = run(settings, "ingest")
    counts = outcome.run.counts
    assert (counts["files"], counts["rows_in"], counts["rows_out"], counts["duplicates"]) == (1, 3, 2, 1)
    ledger = {r.file: (r.rows, r.refused, r.error) for r in rows(settings, "raw_files")}
    assert ledger == {"items.csv": (1, 0, None), "log-1.csv": (2, 1, None), "log-2.csv.gz": (3, 0, None)}
    assert [r.file for r in rows(settings, "raw_files") if r.run_id == outcome.run.run_id] == ["log-2.csv.gz"]


def test_a_run_that_died_before_the_ledger_is_repeated_without_double_rows(
    settings_for: Callable[..., Settings],
    run: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "own"
    write(folder / "items.csv", ITEM_HEADER, "A,Lamp,1,", ",Rug,2,")
    write(folder / "log.csv", EVENT_HEADER, f"ann,A,1,{MARCH}", f"ann,B,1,{MARCH}", f"bob,A,1,{MARCH}")
    settings = settings_for()

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "remember", dies)
        with pytest.raises(KeyboardInterrupt):
            run(settings, "ingest")
    before = versions(settings)
    quarantined = {table: sorted(map(str, rows(settings, table))) for table in TABLES}
    (outcome,) = run(settings, "ingest")
    assert (outcome.run.counts["rows_in"], outcome.run.counts["rows_out"]) == (5, 0)
    assert (outcome.run.counts["refused"], outcome.run.counts["duplicates"]) == (2, 3)
    assert versions(settings) == before
    assert {table: sorted(map(str, rows(settings, table))) for table in TABLES} == quarantined
    assert sorted(r.file for r in rows(settings, "raw_files")) == ["items.csv", "log.csv"]


def test_ids_and_numbers_that_a_spreadsheet_has_touched(
    settings_for: Callable[..., Settings], run: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    bad_items = {"1.2E+05,Lamp,1,": "item_id lost its digits"}
    bad_events = {f"1.2E+05,12,1,{MARCH}": "user_id lost its digits"}
    nulled = {"20,Lamp,NaN,", "21,Lamp,Infinity,", "22,Lamp,inf,", "23,Lamp,-0.01,"}
    write(
        folder / "items.csv",
        ITEM_HEADER,
        "12.0,Rug,1e3,",
        "12,Rug,1000,",
        "1E5A,Vase,,",
        "12.50,Cup,,",
        *nulled,
        *bad_items,
    )
    write(folder / "log.csv", EVENT_HEADER, f"7.0,12,1,{MARCH}", f"7,12.000,1.0,{MARCH}.0", *bad_events)
    settings = settings_for()
    (outcome,) = run(settings, "ingest")
    actual = {r.item_id: r.price for r in rows(settings, "items")}
    without = dict.fromkeys(["1E5A", "12.50", *(line[:2] for line in nulled)])
    assert actual == {"12": 1000.0, **without}
    assert outcome.run.counts["fields_nulled"] == len(nulled)
    assert [(r.user_id, r.item_id) for r in rows(settings, "interactions")] == [("7", "12")]
    assert outcome.run.counts["duplicates"] == 2
    names = {"items": ITEM_HEADER.split(","), "interactions": EVENT_HEADER.split(",")}
    quarantined = {
        ",".join(json.loads(r.raw).get(name, "") for name in names[r.source_table]): r.reasons
        for r in rows(settings, "quarantine")
    }
    assert quarantined == {line: [reason] for line, reason in (bad_items | bad_events).items()}


def test_times_are_in_the_unit_that_the_settings_say(
    spark: SparkSession, settings_for: Callable[..., Settings], run: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    write(folder / "items.csv", ITEM_HEADER, "A,Lamp,1,")
    moments = {"good": MARCH, "old": 0, "year2264": 9_300_000_000, "never": 10**14}
    for unit, factor in (("s", 1), ("ms", 1_000), ("us", 1_000_000)):
        write(folder / "log.csv", EVENT_HEADER, *(f"{who},A,1,{moment * factor}" for who, moment in moments.items()))
        settings = settings_for(time_unit=unit)
        if unit == "us":
            run(settings, "ingest")
            good, refused = rows(settings, "interactions"), rows(settings, "quarantine")
        else:
            _, good, refused = landed_rows(spark, settings, tmp_path / unit)
        assert [(event.user_id, str(event.event_time)) for event in good] == [("good", "2024-03-01 10:00:00")], unit
        assert {json.loads(r.raw)["customer"]: r.reasons for r in refused} == {
            "old": ["event_time before 1990-01-01"],
            "year2264": ["event_time in the future"],
            "never": ["event_time is not a time"],
        }, unit


def test_titles_go_in_byte_for_byte(
    settings_for: Callable[..., Settings], run: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    titles = {
        "long": "word " * 209_715 + "end",
        "emoji": "\U0001f469\u200d\U0001f680 lamp \U0001f1eb\U0001f1f7",
        "rtl": "\u202b\u0645\u0635\u0628\u0627\u062d \u05de\u05e0\u05d5\u05e8\u05d4\u202c",
        "control": "a\x01b\x07c\x1b[31md\te\u2028f\x85g\x7f",
        "html": "<script>alert(1)</script>&amp;<b>O'Neil \\ %41 ${x}</b>",
        "accents": "e\u0301 is not \u00e9",
    }
    write(folder / "items.csv", ITEM_HEADER, *(f"{name},{title},1," for name, title in titles.items()))
    with (folder / "items.csv").open("ab") as file:
        file.write(b"bad,\xc3\x28 title,1,\n")
    write(folder / "log.csv", EVENT_HEADER, f"ann,long,1,{MARCH}")
    with (folder / "log.csv").open("ab") as file:
        file.write(f"\udcff,long,1,{MARCH}\n".encode(errors="surrogateescape"))
    settings = settings_for()
    run(settings, "ingest")
    actual = {r.item_id: r.title for r in rows(settings, "items")}
    assert actual.pop("bad") is None
    assert actual.keys() == titles.keys()
    assert {name for name in titles if actual[name] != titles[name]} == set()
    quarantined = rows(settings, "quarantine")
    assert [(r.source_table, r.reasons) for r in quarantined] == [("interactions", ["not UTF-8"])]


def test_of_several_deliveries_of_an_item_the_newest_change_wins(
    settings_for: Callable[..., Settings], run: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    write(folder / "log.csv", EVENT_HEADER, f"ann,A,1,{MARCH}")
    settings = settings_for()

    def delivered(number: int, *lines: str) -> tuple[dict[str, str], int]:
        write(folder / f"items-{number}.csv", ITEM_HEADER, *lines)
        (outcome,) = run(settings, "ingest")
        return {r.item_id: r.title for r in rows(settings, "items")}, outcome.run.counts["items"]

    first = {"A": "new", "B": "two", "C": "other"}
    assert delivered(1, "A,new,1,2000", "A,old,1,1000", "B,one,1,5", "B,two,1,5", "C,other,1,", "C,else,1,") == (
        first,
        3,
    )
    # An older A, a B of the same time that is smaller; C has no times, so that the delivery decides.
    assert delivered(2, "A,older,1,1500", "B,a,1,5", "C,late,1,") == (first | {"C": "late"}, 1)
    assert delivered(3, "A,newest,1,2001", "B,zzz,1,5", "C,late,1,")[0] == {"A": "newest", "B": "zzz", "C": "late"}
    assert [r.item_index for r in rows(settings, "item_index") if r.item_id == "A"] == [1]


def test_events_wait_in_quarantine_for_their_item(
    settings_for: Callable[..., Settings], run: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    write(folder / "items.csv", ITEM_HEADER)
    write(folder / "log.csv", EVENT_HEADER, f"ann,A,1.5,{MARCH}", "bob,A,1,", f"eve,Z,1,{MARCH}")
    settings = settings_for()
    # A catalogue of nothing is not passed on.
    with pytest.raises(GateError, match="items"):
        run(settings, "ingest")
    assert rows(settings, "items") == rows(settings, "interactions") == []

    def quarantined() -> dict[str, tuple[list[str], bool]]:
        actual = rows(settings, "quarantine")
        return {json.loads(r.raw)["customer"]: (r.reasons, r.parsed is not None) for r in actual}

    waiting = {"eve": (["unknown item"], True)}
    assert quarantined() == {
        "ann": (["unknown item"], True),
        "bob": (["no event_time", "unknown item"], True),
        **waiting,
    }
    write(folder / "items-late.csv", ITEM_HEADER, "A,Lamp,1,")
    (outcome,) = run(settings, "ingest")
    counts = outcome.run.counts
    assert (counts["files"], counts["rows_in"], counts["interactions"], counts["out_of_quarantine"]) == (1, 1, 1, 1)
    (event,) = rows(settings, "interactions")
    assert (event.user_id, event.item_id, event.value) == ("ann", "A", 1.5)
    assert (str(event.event_time), str(event.event_date)) == ("2024-03-01 10:00:00", "2024-03-01")
    assert quarantined() == {"bob": (["no event_time"], False), **waiting}
    # All anew, the event comes out of its file as it came out of quarantine: a duplicate.
    before = versions(settings)
    (again,) = run(settings, "ingest", force=True)
    assert (again.run.counts["rows_out"], again.run.counts["duplicates"]) == (0, 2)
    assert versions(settings) == before
