"""Topics of Kafka as sources: rows, refusals and offsets, exactly once whatever dies in between. A real broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession
from typer.testing import CliRunner

from learn_spark.commands.main import app
from learn_spark.core.errors import SettingsError
from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.sources.deliveries import messages_read_again
from learn_spark.data.sources.kafka import PROPERTIES, read_after
from learn_spark.data.sources.location import LocationError
from learn_spark.data.sources.source import RawFile, UnreadableFileError
from learn_spark.pipeline.lineage import Artifact
from learn_spark.pipeline.preflight import delivery
from learn_spark.pipeline.provenance import Provenance
from tests.stored import stored_rows
from tests.world import write_config

Run = Callable[..., list[Any]]
RELAXED = {f"{table}.refused_share": {"most": None} for table in ("items", "interactions")}
ENDS = ((0, 99), (1, 3))
PLANTED = "planted-password-of-a-client"


@pytest.fixture
def topic(spark: SparkSession, brokers: str, request: pytest.FixtureRequest) -> str:
    """A new topic of two partitions."""
    jvm: Any = spark._jvm
    name = f"orders.{request.node.name[:30]}-{os.urandom(3).hex()}"
    properties = jvm.java.util.Properties()
    properties.put("bootstrap.servers", brokers)
    admin = jvm.org.apache.kafka.clients.admin.Admin.create(properties)
    one = jvm.java.util.Optional
    new = jvm.org.apache.kafka.clients.admin.NewTopic(name, one.of(2), one.empty())
    admin.createTopics(jvm.java.util.Collections.singletonList(new)).all().get()
    admin.close()
    return name


@pytest.fixture
def send(spark: SparkSession, brokers: str) -> Callable[[str, Sequence[Any]], None]:
    """``send(topic, messages)``: of each (partition, JSON or text or None)."""

    def go(topic: str, messages: Sequence[tuple[int, Any]]) -> None:
        rows = [(topic, n, m if m is None or isinstance(m, str) else json.dumps(m)) for n, m in messages]
        frame = spark.createDataFrame(rows, "topic string, partition int, value string").coalesce(1)
        frame.write.format("kafka").option("kafka.bootstrap.servers", brokers).save()

    return go


@pytest.fixture
def settings_of(tmp_path: Path, brokers: str) -> Callable[..., Settings]:
    """Settings that read items from a file and events from topics."""
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "items.csv").write_text("sku,name\n" + "".join(f"A{n},Lamp {n}\n" for n in range(10)))

    def make(topics: str, **changes: Any) -> Settings:
        path = tmp_path / "kafka.yaml"
        tree = yaml.safe_load(write_config(path, raw=raw, workspace=tmp_path / "w", model=tmp_path).read_text())
        columns = {"user_id": "who", "item_id": "sku", "event_time": "at", "value": "order.pieces"}
        events = {"format": "kafka", "brokers": brokers, "files": topics, "columns": columns}
        tree["source"] = {
            "format": "files",
            "path": str(raw),
            "time_unit": "iso",
            "items": {"files": "items.csv", "columns": {"item_id": "sku", "title": "name"}},
            "events": events | changes,
        }
        tree["quality"] = {"rules": RELAXED}
        path.write_text(yaml.safe_dump(tree))
        return load_settings(path)

    return make


def order(n: int) -> dict[str, Any]:
    at = f"2024-03-{n // 24 % 28 + 1:02}T{n % 24:02}:00:00Z"
    return {"who": f"c{n % 7}", "sku": f"A{n % 10}", "at": at, "order": {"pieces": n}}


def values(settings: Settings) -> list[float]:
    return sorted(row.value for row in stored_rows(settings.workspace, "interactions"))


def ranges(settings: Settings) -> dict[str, list[str]]:
    """The ranges of offsets that were read of each partition, in order."""
    rows = sorted(stored_rows(settings.workspace, "raw_files"), key=lambda row: row.read_at)
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.file.startswith("kafka:"):
            found.setdefault(row.file.rpartition("/")[2], []).append(row.state)
    return found


def test_messages_are_deliveries(
    topic: str,
    send: Callable[..., None],
    settings_of: Callable[..., Settings],
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    properties = tmp_path / "client.properties"
    login = f'sasl.jaas.config=org.apache.Login required password="{PLANTED}";\nenable.auto.commit=true'
    properties.write_text(f"client.id=learn-spark\nssl.key.password={PLANTED}\n{login}\n")
    monkeypatch.setenv(PROPERTIES, str(properties))
    settings = settings_of(topic)
    broken = [(1, '{"who": "c1", '), (1, None), (0, {"who": "c1", "sku": "A77", "at": "2024-03-01"}), (0, "[1]")]
    send(topic, [*[(n % 2, order(n)) for n in range(6)], *broken])
    forecast = delivery(settings, Workspace.planned(settings.workspace), force=False)
    assert (forecast.events.files, forecast.events.rows) == (2, 10)
    counts = run(settings, "ingest")[0].run.counts
    assert (counts["interactions"], counts["refused"], counts["files"]) == (6, 4, 3)
    assert values(settings) == [0, 1, 2, 3, 4, 5]
    assert ranges(settings) == {"0": ["offsets:0-5"], "1": ["offsets:0-5"]}
    quarantined = [
        (json.loads(row.raw), row.reasons, row.source_file) for row in stored_rows(settings.workspace, "quarantine")
    ]
    places = {(raw["topic"], raw["partition"], raw["offset"], *reasons) for raw, reasons, _ in quarantined}
    assert places == {
        (topic, 0, 3, "unknown item"),
        (topic, 0, 4, "malformed line"),
        (topic, 1, 3, "malformed line"),
        (topic, 1, 4, "malformed line"),
    }
    assert {file for _, _, file in quarantined} == {f"kafka:{topic}/0", f"kafka:{topic}/1"}
    assert [raw["value"] for raw, _, _ in quarantined if raw["offset"] == 3 and raw["partition"] == 1] == [broken[0][1]]

    # Only what is new is read; a message that is sent again is a duplicate.
    assert run(settings, "ingest")[0].up_to_date
    send(topic, [(0, order(6)), (0, order(0))])
    counts = run(settings, "ingest")[0].run.counts
    assert (counts["rows_in"], counts["interactions"], counts["duplicates"], counts["files"]) == (2, 1, 1, 1)
    assert ranges(settings)["0"] == ["offsets:0-5", "offsets:5-7"]
    assert len(stored_rows(settings.workspace, "quarantine")) == 4

    # Reading all again changes nothing, and other settings read all that the broker has.
    counts = run(settings, "ingest", force=True)[0].run.counts
    assert (counts["interactions"], counts["left_quarantine"], counts["duplicates"]) == (0, 0, 8 + 10)
    workspace = Workspace.open(settings.workspace)
    version = current_version(workspace.table("interactions"))
    used = {use.file for use in Provenance(workspace).raw_files(Artifact("interactions", str(version)))}
    assert f"kafka:{topic}/0 offsets 5 to 6" in used
    by_place = settings_of(
        topic,
        columns={
            "event_id": "concat(kafka_topic, '/', kafka_partition, '/', kafka_offset)",
            "user_id": "who",
            "item_id": "sku",
            "event_time": "kafka_timestamp",
            "value": "order.pieces",
        },
    )
    assert run(by_place, "ingest")[0].run.counts["interactions"] == 8
    ids = {row.event_id for row in stored_rows(settings.workspace, "interactions")}
    assert {f"{topic}/0/{offset}" for offset in (0, 1, 2, 5, 6)} <= ids

    # A second attempt at refused messages: what today's settings accept leaves quarantine, whatever else was refused.
    late = [(0, order(7) | {"at": "01.04.2024 05:00"}), (1, order(8) | {"at": "soon"})]
    send(topic, late)
    settings = settings_of(topic)
    assert run(settings, "ingest")[0].run.counts["refused"] == 4 + 2
    config = tmp_path / "kafka.yaml"
    formats = "time_unit: iso\n  time_formats: [dd.MM.yyyy HH:mm]"
    config.write_text(config.read_text().replace("time_unit: iso", formats))
    command = ["quarantine", "--retry", "--json", "--config", str(config)]
    retried = CliRunner().invoke(app, command)
    assert retried.exit_code == 0, retried.output
    reasons = {one["reason"]: one["rows"] for one in json.loads(retried.stdout)["reasons"]}
    assert reasons == {"unknown item": 1, "malformed line": 3, "event_time is not a time": 1}
    assert 7.0 in values(settings)
    assert 8.0 not in values(settings)
    assert run(load_settings(config), "ingest")[0].up_to_date
    # Of a topic that was made anew, the same offsets are other messages: what the old one had refused stays.
    whole = [RawFile(f"kafka://b:1/{topic}/{n}", f"kafka:{topic}/{n}", frozenset(), f"offsets:0-{e}") for n, e in ENDS]
    assert messages_read_again(whole, workspace) == {f"kafka:{topic}/0": (0, 99)}

    files = [path for path in tmp_path.rglob("*") if path.is_file() and path != properties]
    assert len(files) > 20
    assert not any(PLANTED.encode() in path.read_bytes() for path in files)


def test_what_cannot_be_read_is_one_sentence(
    topic: str, settings_of: Callable[..., Settings], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("learn_spark.data.sources.kafka.ANSWER_MILLISECONDS", 2_000)
    for changes, named in (
        ({"files": "nothing-here"}, "nothing-here"),
        ({"files": "a topic"}, "a topic"),
        ({"brokers": "127.0.0.1:1"}, "127.0.0.1:1"),
        ({"brokers": "no-such-host.invalid:9092"}, "no-such-host"),
    ):
        with pytest.raises(LocationError, match=named):
            run(settings_of(topic, **changes), "ingest")
    for changes in ({"brokers": None}, {"brokers": "user:password@host:1"}, {"format": "csv"}):
        with pytest.raises(SettingsError, match="brokers"):
            settings_of(topic, **changes)
    partition = RawFile("kafka://b:1/t/0", "kafka:t/0", frozenset(["events"]), "offsets:10-20")
    for earlier, named in (("offsets:0-5", "5 to 9 were deleted"), ("offsets:0-30", "made anew")):
        with pytest.raises(UnreadableFileError, match=named):
            read_after(partition, earlier)
    assert [one.state for one in read_after(partition, "offsets:0-12")] == ["offsets:12-20"]
    assert read_after(partition, "offsets:0-20") == []


# Runs ingest in a process that kills itself with all that it has not written, when the named function is called.
KILLED = """
import importlib, os, signal, sys
from learn_spark.core.console import Reporter
from learn_spark.core.settings import load_settings
from learn_spark.pipeline.runner import run_stages
config, place = sys.argv[1:]
module, _, name = place.rpartition(".")
owner = importlib.import_module(module)
setattr(owner, name, lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL))
run_stages(["ingest"], load_settings(config), console=Reporter(quiet=True))
"""
# Before a row is written; when items are, and no event; when events are, and no refusal; before the offsets are.
INSTANTS = ("_merge_items", "_merge_events", "quarantine", "remember")


def test_kills_neither_lose_nor_double_a_row(
    topic: str, send: Callable[..., None], settings_of: Callable[..., Settings], run: Run, tmp_path: Path
) -> None:
    settings = settings_of(topic)
    sent = 0
    for place in INSTANTS:
        messages = [(n % 2, order(n)) for n in range(sent, sent + 5)]
        send(topic, [*messages, (0, f"broken {sent}")])
        sent += 5
        command = [
            sys.executable,
            "-c",
            KILLED,
            str(tmp_path / "kafka.yaml"),
            f"learn_spark.data.sources.ingest.{place}",
        ]
        process = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])
        assert process.returncode == -signal.SIGKILL, process.stderr
    assert current_version(Workspace.open(settings.workspace).table("raw_files")) is None
    run(settings, "ingest")
    assert values(settings) == [float(n) for n in range(sent)]
    assert [row.occurrences for row in stored_rows(settings.workspace, "quarantine")] == [1] * len(INSTANTS)
    read = [state for states in ranges(settings).values() for state in states]
    assert sum(int(state.partition("-")[2]) for state in read) == sent + len(INSTANTS)
