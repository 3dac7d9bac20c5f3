"""Files as exports write them: encodings, packing, headers, quotes, schemas, names; read, or refused by name."""

from __future__ import annotations

import bz2
import gzip
import json
import logging
import os
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from learn_spark.core.errors import SettingsError
from learn_spark.core.settings import Settings
from learn_spark.core.settings.source import FilesSourceSettings
from learn_spark.core.storage.path import storage_path
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.sources.column_names import distinct_names
from learn_spark.data.sources.configured import ConfiguredSource
from learn_spark.data.sources.headers import check_columns
from learn_spark.data.sources.landing import Landing
from learn_spark.data.sources.source import UnreadableFileError, find_files
from learn_spark.data.sources.wording import shown
from tests.data.sources.test_configured import folder, own_settings  # noqa: F401
from tests.stored import stored_rows

COLUMNS = {"item_id": "sku", "title": "name"}
READ = {"A1": "Lamp", "B2": "Rug"}
TEXT = "sku,name\nA1,Lamp\nB2,Rug\n"
CSV = {"format": "csv"}
LINES = {"format": "json-lines"}

# (name, bytes, settings of the files) -> titles by item.
READABLE: list[tuple[str, bytes, dict[str, Any], dict[str, Any]]] = [
    ("cr.csv", TEXT.replace("\n", "\r").encode(), CSV, READ),
    ("crlf-mixed.csv", b"sku,name\r\nA1,Lamp\nB2,Rug\r\n", CSV, READ),
    ("bzip2.csv.bz2", bz2.compress(TEXT.encode()), CSV, READ),
    ("bom.csv", b"\xef\xbb\xbf" + TEXT.encode(), CSV, READ),
    (
        "utf-16.csv",
        TEXT.replace("Rug", "R\u0c0ag\u0a0d").encode("utf-16"),
        {"encoding": "utf-16"},
        {**READ, "B2": "Rఊg\u0a0d"},
    ),
    ("utf-16.csv.gz", gzip.compress(TEXT.encode("utf-16-le")), {"encoding": "utf-16-le"}, READ),
    ("utf-16-many.csv", TEXT.encode("utf-16"), {"encoding": "utf-16", "multiline": True}, READ),
    ("cp1252.csv", TEXT.replace("Lamp", "Café 5€").encode("cp1252"), {"encoding": "cp1252"}, {**READ, "A1": "Café 5€"}),
    (
        "cp1252-many.csv",
        TEXT.replace("Lamp", "5€").encode("cp1252"),
        {"encoding": "cp1252", "multiline": True},
        {**READ, "A1": "5€"},
    ),
    (
        "latin.jsonl",
        '{"sku": "A1", "name": "Café"}\n'.encode("latin-1"),
        {**LINES, "encoding": "latin-1"},
        {"A1": "Café"},
    ),
    (
        "utf-16.jsonl",
        '{"sku": "A1", "name": "Café"}\n'.encode("utf-16"),
        {**LINES, "encoding": "utf-16"},
        {"A1": "Café"},
    ),
    ("tab.tsv", TEXT.replace(",", "\t").encode(), {"separator": r"\t"}, READ),
    ("empty-line.csv", b"\n\r\n" + TEXT.encode(), CSV, READ),
    ("sep.csv", b"sep=;\r\n" + TEXT.replace(",", ";").encode(), CSV, READ),
    ("sep-many.csv", b"sep=;\r\n" + TEXT.replace(",", ";").replace("\n", "\r\n").encode(), {"multiline": True}, READ),
    (
        "inches-many.csv",
        b'sku,name\nA1,"Lamp,\nred"\nB2,5" rug\n',
        {"multiline": True},
        {"A1": "Lamp,\nred", "B2": '5" rug'},
    ),
    ("sep-row.csv", TEXT.encode() + b"sep=,\n", CSV, {**READ, "sep=": None}),
    ("twice.csv", TEXT.encode() + b"sku,name\nC3,Vase\n", CSV, {**READ, "C3": "Vase"}),
    (
        "mysql.csv",
        rb"sku,name" + b"\n" + rb'A1,"Lamp \"round\", red"' + b"\n",
        {"escape": "\\"},
        {"A1": 'Lamp "round", red'},
    ),
    ("apostrophe.csv", b"sku,name\nA1,'Lamp, it''s'\n", {"quote": "'"}, {"A1": "Lamp, it's"}),
    ("unquoted.csv", b'sku,name\nA1,"Lamp\nB2,5" rug"\n', {"quote": ""}, {"A1": '"Lamp', "B2": '5" rug"'}),
    ("inches.csv", b'sku,name\nA1,5" lamp, wide\nB2,5" rug\n', CSV, {"A1": None, "B2": '5" rug'}),
    ("cut.csv", b'sku,name\nA1,"Lamp,\nlarge, wide"\nB2,Rug\n', CSV, {"A1": None, "large": None, "B2": "Rug"}),
    ("case.csv", b"SKU,sku,other\n1,A1,x\n", {"columns": {"item_id": "sku"}}, {"A1": None}),
    ("nameless.csv", b",sku,name,\n0,A1,Lamp,\n1,B2,Rug,\n", CSV, READ),
    ("repeated.csv", b"sku,x,x,name\nA1,1,2,Lamp\n", CSV, {"A1": "Lamp"}),
    ("commas.csv", TEXT.encode() + b"," * 300_000 + b"\n", CSV, READ),
    ("blank-first.jsonl", b'\n  \n{"sku": "A1", "name": "Lamp"}\n', LINES, {"A1": "Lamp"}),
    (
        "huge-first.jsonl",
        json.dumps({"sku": "A1", "name": "Lamp", "x": "y" * 1_200_000}).encode() + b"\n",
        LINES,
        {"A1": "Lamp"},
    ),
    (
        "two.jsonl",
        b'{"sku": "A1", "name": "Lamp"}\n{"sku": "B2"}{"sku": "C3"}\n{"sku": "D4"} x\n'
        b'{"sku": "F6"}, {"sku": "G7"}\n[{"sku": "E5"}]\n',
        LINES,
        {"A1": "Lamp"},
    ),
    ("case.jsonl", b'{"sku": "A1", "SKU": 1, "name": "Lamp"}\n', LINES, {"A1": "Lamp"}),
    (
        "tick.jsonl",
        b'{"sku": "A1", "na`me": "Lamp", "a.b": 1}\n',
        {**LINES, "columns": {"item_id": "sku", "title": "`na``me`"}},
        {"A1": "Lamp"},
    ),
    (
        "struct.jsonl",
        b'{"sku": "A1", "name": {"en": "Lamp"}}\n{"sku": "B2", "name": "Rug"}\n',
        LINES,
        {"A1": '{"en":"Lamp"}', "B2": "Rug"},
    ),
]
# (name, bytes, settings of the files, what the message says)
UNREADABLE: list[tuple[str, bytes, dict[str, Any], str]] = [
    ("packed.csv", gzip.compress(TEXT.encode()), CSV, r"gzip: name it packed\.csv\.gz"),
    ("plain.csv.gz", TEXT.encode(), CSV, "not packed"),
    ("book.csv", b"PK\x03\x04" + b"\x00" * 40, CSV, "Excel"),
    ("data.csv", b"PAR1" + b"\x00" * 40, CSV, "format: parquet"),
    ("packed.csv.zst", b"\x28\xb5\x2f\xfd" + b"\x00" * 40, CSV, "zstd"),
    ("utf-16.csv", TEXT.encode("utf-16"), CSV, "encoding: utf-16"),
    ("no-bom.csv", TEXT.encode("utf-16-be"), CSV, "encoding: utf-16-be"),
    ("cp1252.csv", TEXT.replace("Lamp", "Café crème brûlée").encode("cp1252"), CSV, "encoding: cp1252"),
    ("noise.csv", bytes(range(256)) * 3 + b"\x00" * 300, CSV, "not text"),
    ("long.csv", b"x" * 140_000 + b"\nA1,Lamp\n", CSV, "no column sku, name"),
    ("endless.csv", b"x" * 2_000_000, CSV, "no end"),
    ("empty.csv", b"", CSV, "empty"),
    ("blank.csv", b"\n\n \n", CSV, "empty"),
    ("only-sep.csv", b"sep=;\n", CSV, "empty"),
    ("two-names.csv", b"sku,name,name\nA1,Lamp,x\n", CSV, "name, name have one name"),
    ("two-cases.csv", b"SKU,sku,name\nA1,A1,x\n", {"columns": {"item_id": "upper(sku)"}}, "SKU, sku have one name"),
    ("array.csv", b"[" + b'{"sku": "A1"},' * 10_000 + b"]\n", CSV, "JSON array"),
    ("lines.csv", b'{"sku": "A1", "name": "Lamp"}\n', CSV, "format: json-lines"),
    ("pretty.csv", b'[\n  {\n  "sku": "A1"\n  }\n]\n', CSV, "JSON"),
    ("long-names.csv", b",".join(b"%d" % n * 50 for n in range(99)) + b"\n1\n", CSV, "no column sku"),
    ("wide.csv", b"sku,name" + b",c" * 25_000 + b"\nA1,Lamp\n", CSV, "25,002 columns"),
    ("dotted.csv", TEXT.encode(), {"columns": {"item_id": "sku", "title": "a.b"}}, r"no column a\.b"),
    ("open.csv", b'sku,"na\nme"\nA1,Lamp\n', CSV, "multiline: true"),
    ("cut-many.csv", b'sku,name\nA1,"Lamp, ""red"""\nB2,"Rug\nC3,Vase\n', {"multiline": True}, "line 3 is not closed"),
    ("cut-many.csv.gz", gzip.compress(b'sku,name\nA1,"Lamp'), {"multiline": True}, "line 2 is not closed"),
    ("escape-many.csv", rb"sku,name" + b"\n" + rb'A1,"Lamp \"', {"multiline": True, "escape": "\\"}, "is not closed"),
    ("array.jsonl", b'[{"sku": "A1"}]', LINES, "JSON array"),
    ("pretty.jsonl", b'{\n  "sku": "A1"\n}\n', LINES, "several lines"),
    ("cut.jsonl.gz", gzip.compress(os.urandom(40_000))[:2_000], LINES, "cannot be read"),
    ("not.parquet", b"not parquet at all", {"format": "parquet"}, "cannot be read as Parquet"),
    ("_log.csv", TEXT.encode(), CSV, "begin with _"),
]


def titles(spark: SparkSession, where: Path, pattern: str, described: dict[str, Any]) -> list[Any]:
    """Rows of the items that these files give."""
    files = {"columns": COLUMNS, **described, "files": pattern}
    settings = FilesSourceSettings.model_validate(
        {
            "path": str(where),
            "items": files,
            "events": {**files, "columns": {"user_id": "1", "item_id": "2", "event_time": "3"}},
        }
    )
    source = ConfiguredSource(settings)
    found = [file for file in source.files(where) if "items" in file.kinds]
    check_columns(settings, where)
    return source.items(spark, where, found).collect()


@pytest.mark.parametrize("part", range(2))
def test_readable_files(spark: SparkSession, tmp_path: Path, part: int) -> None:
    for name, content, described, expected in READABLE[part::2]:
        (tmp_path / name).write_bytes(content)
        rows = titles(spark, tmp_path, name, described)
        if name not in ("cut.csv", "inches.csv"):
            assert {row.item_id: row.title for row in rows if not row.malformed} == expected, name
        assert {row.source_file for row in rows} == {name}


def test_halves_of_a_cut_record_are_malformed_and_say_what_reads_them(spark: SparkSession, tmp_path: Path) -> None:
    by_name = {name: (content, described) for name, content, described, _ in READABLE}
    for name, good in (("cut.csv", {"B2"}), ("inches.csv", {"B2"})):
        (tmp_path / name).write_bytes(by_name[name][0])
        rows = titles(spark, tmp_path, name, by_name[name][1])
        assert {row.item_id for row in rows if not row.malformed} == good
        refused = [json.loads(row.raw) for row in rows if row.malformed]
        assert all(("multiline: true" in row.get("why", "")) == (name == "cut.csv") for row in refused)
    assert len(titles(spark, tmp_path, "cut.csv", {"multiline": True})) == 2


def test_unreadable_files_are_named_with_the_reason(spark: SparkSession, tmp_path: Path) -> None:
    for name, content, described, reason in UNREADABLE:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableFileError, match=reason) as raised:
            titles(spark, tmp_path, name, described)
        message = str(raised.value)
        assert raised.value.name == name
        assert len(message) < 600, name
        assert message.isprintable(), name


def test_what_cannot_be_read_is_skipped_by_name_in_every_reader(
    folder: Path,  # noqa: F811
    own_settings: Callable[..., Settings],  # noqa: F811
    run: Callable[..., Any],
) -> None:
    events = {"columns": {"user_id": "u", "item_id": "sku", "event_time": "t"}}
    line = b'{"u": "ann", "sku": "A1", "t": "2024-03-01"}\n'
    whole = gzip.compress(line + os.urandom(300_000).hex().encode())
    (folder / "log-1.jsonl").write_bytes(line)
    (folder / "log-2.jsonl.gz").write_bytes(whole[:100_000])
    (folder / "log-3.jsonl.gz").write_bytes(b"no gzip")
    settings = own_settings(unreadable="skip", events={**events, "files": "*.jsonl*", "format": "json-lines"})
    (outcome,) = run(settings, "ingest")
    assert (outcome.run.counts["interactions"], outcome.run.counts["files_skipped"]) == (1, 2)
    errors = {row.file: row.error for row in stored_rows(settings.workspace, "raw_files")}
    assert {name for name, error in errors.items() if error} == {"log-2.jsonl.gz", "log-3.jsonl.gz"}
    tables = [Workspace.open(settings.workspace).table(name) for name in ("items", "interactions", "quarantine")]
    before = [current_version(table) for table in tables]
    (folder / "_day.jsonl").write_bytes(line)
    for pattern, named in (("log*.jsonl*", r"log-2\.jsonl\.gz"), ("*[1y].jsonl", r"_day\.jsonl")):
        with pytest.raises(UnreadableFileError, match=named):
            run(own_settings(events={**events, "files": pattern, "format": "json-lines"}), "ingest")
    assert [current_version(table) for table in tables] == before

    good = pa.table({"u": ["bob"], "sku": ["C3"], "t": pa.array([datetime(2024, 3, 2)], pa.timestamp("ns"))})
    pq.write_table(good, folder / "a.parquet")
    (folder / "b.parquet").write_bytes(b"not parquet at all")
    (folder / "c.parquet").write_bytes((folder / "a.parquet").read_bytes()[:-200])
    body = bytearray((folder / "a.parquet").read_bytes())
    body[4:60] = bytes(56)  # a good footer over broken pages
    (folder / "d.parquet").write_bytes(bytes(body))
    pq.write_table(good, folder / "e.parquet", compression="brotli")
    settings = own_settings(unreadable="skip", events={**events, "files": "*.parquet", "format": "parquet"})
    (outcome,) = run(settings, "ingest")
    assert (outcome.run.counts["interactions"], outcome.run.counts["files_skipped"]) == (1, 4)
    errors = {row.file: row.error for row in stored_rows(settings.workspace, "raw_files")}
    assert {name for name, error in errors.items() if error} >= {"b.parquet", "c.parquet", "d.parquet"}
    assert "packed by brotli" in errors["e.parquet"]
    assert errors["a.parquet"] is None


def test_parquet_of_several_schemas(spark: SparkSession, tmp_path: Path) -> None:
    moment = datetime(2024, 3, 1, 10, 30, 0, 250_001)
    at = {unit: pa.array([moment], pa.timestamp(unit)) for unit in ("us", "ns")}
    tables = [
        {"u": pa.array([7], pa.int32()), "sku": ["A1"], "t": at["ns"], "n": pa.nulls(1)},
        {"u": ["eve"], "sku": ["A1"], "t": at["us"], "n": [1.5]},
        {
            "u": pa.array([12345678901234567], pa.int64()),
            "sku": ["A1"],
            "t": pa.array([moment], pa.timestamp("ns", "UTC")),
            "n": [2],
        },
        {
            "u": pa.array(["max"]).dictionary_encode(),
            "sku": ["A1"],
            "t": pa.array([date(2024, 3, 1)]),
            "clock": pa.array([1], pa.time64("us")),
        },
        {"u": ["old"], "sku": ["A1"], "t": at["us"]},
    ]
    for number, columns in enumerate(tables):
        old = number == 4
        pq.write_table(pa.table(columns), tmp_path / f"{number}.parquet", use_deprecated_int96_timestamps=old)
    described = {"files": "*.parquet", "format": "parquet"}
    columns = {"user_id": "u", "item_id": "sku", "event_time": "t", "value": "n"}
    for unit in ("s", "ms", "us", "iso"):
        settings = FilesSourceSettings.model_validate(
            {
                "path": "x",
                "time_unit": unit,
                "items": {**described, "columns": {"item_id": "sku"}},
                "events": {**described, "columns": columns},
            }
        )
        source = ConfiguredSource(settings)
        files = source.files(tmp_path)
        landed = Landing(spark, source, tmp_path, files, storage_path(tmp_path / f"scratch-{unit}")).events(
            spark.createDataFrame([("A1",)], "item_id string")
        )
        assert landed is not None
        events = {row.user_id: (row.value, row.event_time) for row in landed.frame.collect()}
        assert events == {
            "7": (None, moment),
            "eve": (1.5, moment),
            "12345678901234567": (2.0, moment),
            "max": (None, datetime(2024, 3, 1)),
            "old": (None, moment),
        }
    pq.write_table(pa.table({"SKU": [1], "sku": [2]}), tmp_path / "9.parquet")
    with pytest.raises(UnreadableFileError, match=r"9\.parquet: its columns SKU, sku"):
        source.items(spark, tmp_path, source.files(tmp_path))


def test_nanoseconds_in_lists_structs_and_maps_are_times(spark: SparkSession, tmp_path: Path) -> None:
    at = pa.timestamp("ns")
    moments = [1_709_287_200_250_001_999, None]
    shapes = {
        "inside": (pa.struct([("at", at), ("n", pa.int64())]), [{"at": one, "n": 1} for one in moments]),
        "listed": (pa.list_(at), [[one] for one in moments]),
        "mapped": (pa.map_(pa.string(), at), [[("at", one)] for one in moments]),
    }
    table = {name: pa.array(values, kind) for name, (kind, values) in shapes.items()}
    pq.write_table(pa.table({"sku": ["A1", "B2"], **table}), tmp_path / "a.parquet")
    # Microseconds of another file are of the same type.
    kind = pa.struct([("at", pa.timestamp("us", "UTC")), ("n", pa.int64())])
    pq.write_table(pa.table({"sku": ["C3"], "inside": pa.array([{"at": 0, "n": 1}], kind)}), tmp_path / "b.parquet")
    for sql, others in (
        ("inside.at", {"C3": "1970-01-01T00:00:00"}),
        ("listed[0]", {"C3": None}),
        ("mapped['at']", {"C3": None}),
    ):
        rows = titles(
            spark,
            tmp_path,
            "*.parquet",
            {"format": "parquet", "columns": {"item_id": "sku", "title": f"string({sql})"}},
        )
        times = {row.item_id: row.title and row.title.replace(" ", "T") for row in rows}
        assert times == {"A1": "2024-03-01T10:00:00.250001", "B2": None, **others}, sql


def test_folders_that_name_a_column(spark: SparkSession, tmp_path: Path) -> None:
    for day, extra in (("2024-03-01", ""), ("2024-03-02", ",shop")):
        (tmp_path / f"dt={day}").mkdir()
        (tmp_path / f"dt={day}" / "a.csv").write_text(f"sku{extra}\nA{day[-1]}{',x' if extra else ''}\n")
        pq.write_table(pa.table({"sku": [f"A{day[-1]}"]}), tmp_path / f"dt={day}" / "a.parquet")
    for name, kind in (("csv", "csv"), ("parquet", "parquet")):
        rows = titles(spark, tmp_path, f"**/*.{name}", {"format": kind, "columns": {"item_id": "sku", "title": "dt"}})
        assert {row.item_id: row.title for row in rows} == {"A1": "2024-03-01", "A2": "2024-03-02"}


def test_files_of_systems_and_writers_are_passed_over(tmp_path: Path) -> None:
    names = [
        "log.csv",
        "_log.csv",
        "._log.csv",
        ".log.csv.crc",
        "_SUCCESS",
        "log.csv._COPYING_",
        ".x/log.csv",
        "_delta_log/log.csv",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(TEXT)
    found = {file.name for pattern in ("*", "**/*.csv*") for file in find_files(tmp_path, pattern, ["items"])}
    assert found == {"log.csv", "_log.csv"}  # the latter is refused by name when it is read


def test_a_file_that_keeps_size_and_time_but_not_content_is_new(tmp_path: Path) -> None:
    states = []
    large = 3_000_000
    contents = ["a" * 100, "b" * 100, "a" * 999_000, "a" * 500_000 + "b" + "a" * 498_999]
    # Beyond 1 MiB the ends and 62 pieces between them are looked at.
    contents += ["a" * large, "b" + "a" * (large - 1), "a" * (large - 1) + "b", "a" * 1_000_000 + "b" * 2_000_000]
    for content in contents:
        (tmp_path / "log.csv").write_text(content)
        os.utime(tmp_path / "log.csv", (1, 1))
        states.append(find_files(tmp_path, "log.csv", ["items"])[0].state)
    assert len(set(states)) == len(contents)


def test_an_expression_that_does_not_fit_is_one_sentence(
    spark: SparkSession, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "items.csv").write_text(TEXT)
    for sql, expected in (
        ("dt * 2", "no column dt; the files have the columns sku, name"),
        ("no_such(sku)", "no_such"),
        ("sku +", "sku"),
    ):
        with pytest.raises(SettingsError, match=expected) as raised:
            titles(spark, tmp_path, "items.csv", {"columns": {"item_id": "sku", "title": sql}})
        assert "_raw" not in str(raised.value)
        assert "\n" not in str(raised.value)
        assert "items.columns.title" in str(raised.value)
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_names_and_quotations() -> None:
    assert distinct_names(["", "a", "A", "a (2)"], ["a"]) == ("column 1", "a", "A (2)'", "a (2)")
    assert distinct_names(["x", "X", "y"]) == ("x", "X (2)", "y")
    with pytest.raises(ValueError, match="x, X"):
        distinct_names(["x", "X"], ["lower(x)"])
    assert shown("a\x1b[31m\x00b" + "c" * 500).startswith("a\\x1b[31m\\x00bc")
    assert len(shown("c" * 500)) == 200
