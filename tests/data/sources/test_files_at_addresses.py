"""Raw files in S3 and HDFS give the rows, refusals and bookkeeping of the same files in a folder."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.storage.folders import upload
from learn_spark.core.storage.path import S3Access, StoragePath
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.sources.delta_tables import find_table
from learn_spark.data.sources.location import LocationError, source_folder
from learn_spark.data.sources.source import find_files
from learn_spark.pipeline.lineage import Artifact
from learn_spark.pipeline.preflight import delivery
from learn_spark.pipeline.provenance import Provenance
from tests.places import empty_place
from tests.servers import requests_of
from tests.stored import stored_rows
from tests.world import write_config

Run = Callable[..., list[Any]]
KINDS = ("folder", "s3", "hdfs")
JSON_ITEMS = {
    "files": "items/*.jsonl*",
    "format": "json-lines",
    "columns": {"item_id": "sku", "title": "name", "brand": "maker.name"},
}
PARQUET_ITEMS = {"files": "items.parquet", "format": "parquet", "columns": {"item_id": "sku", "updated_at": "at"}}
CSV_EVENTS = {
    "files": "log/**/*.csv*",
    "columns": {"user_id": "who", "item_id": "sku", "event_time": "dt", "value": "pieces"},
}
UTF16_EVENTS = {
    "files": "wide.csv",
    "encoding": "utf-16",
    "columns": {"user_id": "who", "item_id": "sku", "event_time": "at"},
}
RELAXED = {f"{table}.refused_share": {"most": None} for table in ("items", "interactions")}
ODD = "log/dt=2024-03-03/märz 3+4%20.csv"


def write_delivery(folder: Path) -> list[str]:
    """Files of every format, one of them broken; their names."""
    items = [{"sku": f"A{n}", "name": f"Lamp № {n}", "maker": {"name": "Lux"}} for n in range(6)]
    lines = [json.dumps(item, ensure_ascii=False) for item in items]
    times = pa.array([1_709_251_200_000_000_000, None], pa.timestamp("ns"))
    log = "who,sku,pieces\n"
    contents: dict[str, bytes] = {
        "items/one.jsonl": "\n".join([*lines[:3], '{"sku": "A9", "name"', '{"name": "without a key"}']).encode(),
        "items/two.jsonl.gz": gzip.compress("\n".join(lines[3:]).encode()),
        "log/dt=2024-03-01/a.csv": (log + "ann,A0,1\nbob,A1,two\n,A2,1\n").encode(),
        "log/dt=2024-03-02/b.csv.gz": gzip.compress((log + "ann,A3,3\nann,A77,1\nbob\n").encode()),
        "log/dt=2024-03-02/broken.csv.gz": gzip.compress(b"x" * 100_000)[:60],
        ODD: (log + "zoë,A5,1\n").encode(),
        "log/_SUCCESS": b"",
        "wide.csv": "who,sku,at\nölaf,A0,2024-05-01\nölaf,A1,never\n".encode("utf-16"),
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    pq.write_table(pa.table({"sku": ["A0", "A1"], "at": times}), folder / "items.parquet")
    return [*contents, "items.parquet"]


@pytest.fixture
def raw(tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, StoragePath]:
    """The same delivery in a folder, in S3 and in HDFS."""
    folder = tmp_path / "raw"
    names = write_delivery(folder)
    places = {kind: empty_place(kind, request) / "raw" for kind in KINDS}
    for kind in ("s3", "hdfs"):
        for name in names:
            upload(folder / name, places[kind] / name)
    return places


@pytest.fixture
def settings_at(tmp_path: Path, raw: dict[str, StoragePath]) -> Callable[..., Settings]:
    """The settings that read the delivery at a place into a workspace in a folder of its own."""

    def make(kind: str, **source: Any) -> Settings:
        place = raw[kind]
        path = tmp_path / f"{kind}-{len(source)}.yaml"
        tree = yaml.safe_load(
            write_config(path, raw=tmp_path, workspace=tmp_path / kind, model=tmp_path).read_text(encoding="utf-8")
        )
        described = {"format": "files", "path": str(place), "time_unit": "iso", "unreadable": "skip"}
        described |= {"items": JSON_ITEMS, "events": CSV_EVENTS} | source
        server = {"endpoint": place.s3.server} if place.s3.server else {}
        tree |= {"source": described, "storage": server, "quality": {"rules": RELAXED}}
        path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
        return load_settings(path)

    return make


def comparable(settings: Settings, table: str) -> list[str]:
    """The rows of a table without what differs between any two runs, sorted."""
    changing = ("run_id", "read_at", "state", "item_index")
    rows = [row.asDict() for row in stored_rows(settings.workspace, table)]
    return sorted(repr({name: value for name, value in row.items() if name not in changing}) for row in rows)


def test_the_same_delivery_gives_the_same_rows_everywhere(
    raw: dict[str, StoragePath], settings_at: Callable[..., Settings], run: Run, bucket: StoragePath, tmp_path: Path
) -> None:
    settings = {kind: settings_at(kind) for kind in KINDS}
    forecast = {
        kind: delivery(settings[kind], Workspace.planned(settings[kind].workspace), force=False) for kind in KINDS
    }
    outcomes = {kind: run(settings[kind], "ingest")[0].run for kind in KINDS}
    counts = outcomes["folder"].counts
    assert (counts["items"], counts["interactions"], counts["refused"]) == (6, 4, 5)
    assert (counts["files"], counts["files_skipped"]) == (5, 1)
    assert {row.brand for row in stored_rows(settings["folder"].workspace, "items")} == {"Lux"}
    for kind in ("s3", "hdfs"):
        assert {**outcomes[kind].counts, "spark_jobs": 0} == {**counts, "spark_jobs": 0}
        assert (forecast[kind].items.files, forecast[kind].events.files) == (2, 4)
        assert forecast[kind].events.size == forecast["folder"].events.size
        assert [note.partition(":")[0] for note in forecast[kind].notes] == ["would be skipped"]
        for table in ("items", "item_index", "interactions", "quarantine", "raw_files"):
            assert comparable(settings[kind], table) == comparable(settings["folder"], table), (kind, table)
        path = Workspace.open(settings[kind].workspace).table("interactions")
        uses = Provenance(Workspace.open(settings[kind].workspace)).raw_files(
            Artifact("interactions", str(current_version(path)))
        )
        assert {use.folder for use in uses} == {str(raw[kind])}
        assert ODD in {use.file for use in uses}
    events = stored_rows(settings["s3"].workspace, "interactions")
    assert {(row.user_id, row.item_id, row.value, row.event_time.day) for row in events} == {
        ("ann", "A0", 1.0, 1),
        ("bob", "A1", None, 1),
        ("ann", "A3", 3.0, 2),
        ("zoë", "A5", 1.0, 3),
    }

    # Resting: of each file only the state is asked for, and no content.
    contents, requests = requests_of(bucket, f'"GET /{bucket.inner}/'), requests_of(bucket)
    assert run(settings["s3"], "ingest")[0].up_to_date
    assert requests_of(bucket, f'"GET /{bucket.inner}/') == contents
    # Two listings and six states a look, of which a run has two or three.
    assert requests_of(bucket) - requests <= 3 * (2 + 6)

    # The same name, size and (where a tool can do that) time, and another content.
    changed = b"who,sku,pieces\nann,A0,9\nbob,A1,two\n,A2,1\n"
    first = tmp_path / "raw" / "log/dt=2024-03-01/a.csv"
    before = first.stat()
    first.write_bytes(changed)
    os.utime(first, ns=(before.st_atime_ns, before.st_mtime_ns))
    for kind in KINDS:
        if kind != "folder":
            upload(first, raw[kind] / "log/dt=2024-03-01/a.csv")
        assert run(settings[kind], "ingest")[0].run.counts["files"] == 1, kind
    assert comparable(settings["s3"], "interactions") == comparable(settings["folder"], "interactions")
    assert comparable(settings["hdfs"], "interactions") == comparable(settings["folder"], "interactions")


def test_parquet_and_utf16(settings_at: Callable[..., Settings], run: Run, raw: dict[str, StoragePath]) -> None:
    read = {}
    for kind in KINDS:
        settings = settings_at(kind, items=PARQUET_ITEMS, events=UTF16_EVENTS)
        counts = run(settings, "ingest")[0].run.counts
        assert (counts["items"], counts["interactions"], counts["refused"]) == (2, 1, 1)
        read[kind] = [comparable(settings, table) for table in ("items", "interactions", "quarantine", "raw_files")]
    assert read["s3"] == read["folder"]
    assert read["hdfs"] == read["folder"]


def test_exposures_of_logs(
    settings_at: Callable[..., Settings], run: Run, raw: dict[str, StoragePath], tmp_path: Path
) -> None:
    shown = "user_id,item_id,event_time,converted\nann,A0,2024-03-01,true\nbob,A1,2024-03-01,0\nbob,A1,never,0\n"
    (tmp_path / "raw" / "shown").mkdir()
    read = {}
    for kind, place in raw.items():
        (place / "shown" / "one.csv").write_text(shown)
        (place / "shown" / "two.csv.gz").write_text("no gzip")
        given = settings_at(kind)
        tree = given.model_dump(mode="json", by_alias=True)
        logs = [{"files": "shown/*.csv*"}]
        tree["exposures"] = {"from": "logs", "path": str(place), "unreadable": "skip", "logs": logs}
        tree["quality"] = {"rules": {"exposures.refused_share": {"most": None}}}
        path = tmp_path / f"exposures-{kind}.yaml"
        path.write_text(yaml.safe_dump(tree))
        counts = run(load_settings(path), "exposures")[0].run.counts
        assert (counts["rows_in"], counts["rows_out"], counts["refused"], counts["files_skipped"]) == (3, 2, 1, 1)
        read[kind] = [comparable(given, table) for table in ("exposures", "quarantine")]
    assert read["s3"] == read["folder"]
    assert read["hdfs"] == read["folder"]


def test_patterns_match_as_in_a_folder(raw: dict[str, StoragePath]) -> None:
    patterns = ("*", "**/*.csv", "log/**", "log/*/a.csv", "log/dt=2024-03-0[12]/*.csv*", "**/*", "wide.csv", "l?g/*/*")
    for pattern in patterns:
        names = {
            kind: [file.name for file in find_files(place, pattern, ["items"], optional=True)]
            for kind, place in raw.items()
        }
        assert names["s3"] == names["folder"], pattern
        assert names["hdfs"] == names["folder"], pattern
    for pattern in ("../x.csv", "/x.csv", "s3://other/x.csv", "none*.csv"):
        for place in raw.values():
            with pytest.raises(LocationError):
                find_files(place, pattern, ["items"])
    nobody = StoragePath("s3://raw/x", S3Access(endpoint="http://127.0.0.1:1"))
    for place in (StoragePath("s3://of-nobody/raw", raw["s3"].s3), nobody, StoragePath("hdfs://127.0.0.1:1/raw")):
        with pytest.raises(LocationError, match=place):
            find_files(place, "x.csv", ["items"])
    with pytest.raises(LocationError, match=nobody):
        find_table(nobody, "orders", "items", None)
    for location in ("s3://", "ftp://host/raw"):
        with pytest.raises(LocationError):
            source_folder(location, raw["s3"].s3)


def test_a_state_is_an_etag_or_a_checksum(raw: dict[str, StoragePath]) -> None:
    states = {kind: find_files(place, "wide.csv", ["items"])[0].state.split(":") for kind, place in raw.items()}
    assert states["s3"][:2] == ["90", "etag"]
    assert states["folder"][0] == states["hdfs"][0] == "90"
    assert states["folder"][2] == states["hdfs"][2] != "unread"
