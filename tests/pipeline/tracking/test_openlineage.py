"""Events of real runs reach a receiver and a file, and are what OpenLineage asks for; a receiver that is gone is a
warning."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from learn_spark.core.console import Reporter
from learn_spark.core.settings.tracking import OpenLineageSettings
from learn_spark.core.stages.registry import all_stages, find_stage
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.runs import Run, all_runs
from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.runner import run_stages
from learn_spark.pipeline.tracking.lineage_events import ENDS, event_of, name_of, run_uuid
from learn_spark.pipeline.tracking.observers import observer_of
from learn_spark.pipeline.tracking.openlineage_observer import OpenLineageObserver
from tests.pipeline.tracking.gate import Gate
from tests.pipeline.tracking.openlineage_schema import errors_of
from tests.report.planted import plant
from tests.shelf import Shelf, reading

Event = dict[str, Any]
KEY = "a-key-that-only-the-header-has"
COUNTED = ("rowCount", "size", "fileCount")


class Receiver(ThreadingHTTPServer):
    """Keeps every event that is posted to /api/v1/lineage."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.events: list[Event] = []
        self.keys: set[str | None] = set()


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        there = self.path == "/api/v1/lineage"
        if there:
            self.server.events.append(json.loads(content))
            self.server.keys.add(self.headers["Authorization"])
        self.send_response(201 if there else 404)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def check_valid(event: Event) -> None:
    """The event and its facets are what the schema 2-0-2 of OpenLineage demands."""
    assert errors_of(event) == []


def named(datasets: list[Event]) -> dict[str, str]:
    """Last part of a dataset's name -> its version."""
    return {one["name"].rpartition("/")[2]: one["facets"]["version"]["datasetVersion"] for one in datasets}


def test_a_run_is_two_events_with_the_versions_of_its_datasets(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENLINEAGE_API_KEY", KEY)
    shelf, file = Shelf(tmp_path / "here", reading()), tmp_path / "logs" / "events.jsonl"
    to = (f"openlineage.url=http://127.0.0.1:{receiver.server_port}", f"openlineage.file={file}")
    observer = observer_of(shelf.settings(*to, "openlineage.namespace=shop"), shelf.workspace, Reporter(quiet=True))
    run, _ = shelf.run("train", "training.epochs=1", observer=observer)
    start, complete = receiver.events
    for event in (start, complete):
        check_valid(event)
        assert (event["job"]["namespace"], event["job"]["name"]) == ("shop", "train")
        assert event["run"]["runId"] == run_uuid(shelf.workspace, run.run_id)
        assert named(event["inputs"]) == run.inputs
    assert [start["eventType"], complete["eventType"]] == ["START", "COMPLETE"]
    assert start["outputs"] == []
    assert named(complete["outputs"]) == {str(run.model_id): str(run.model_id)}
    histories = next(one for one in complete["inputs"] if one["name"].endswith("user_histories"))
    assert (histories["namespace"], histories["name"]) == ("file", str(shelf.workspace.table("user_histories")))
    columns = [column["name"] for column in histories["facets"]["schema"]["fields"]]
    assert columns == list(contract("user_histories").names)
    tags = {tag["key"]: tag["value"] for tag in complete["run"]["facets"]["tags"]["tags"]}
    assert (tags["run_id"], tags["count.epochs"]) == (run.run_id, "1")
    assert [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] == receiver.events
    assert receiver.keys == {f"Bearer {KEY}"}
    assert KEY not in file.read_text(encoding="utf-8")


def test_the_runner_tells_of_runs_that_end_fail_or_are_stopped_and_of_no_other(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf, gate = Shelf(tmp_path / "here", reading()), Gate(receiver.server_port)
    monkeypatch.setattr("learn_spark.report.write.render", lambda workspace: "a page")  # to draw it takes seconds
    file, reports = tmp_path / "events.jsonl", shelf.workspace.root / "reports"

    def report(*more: str, force: bool = False) -> None:
        to = (f"openlineage.url=http://127.0.0.1:{gate.port}", f"openlineage.file={file}", *more)
        run_stages(["report"], shelf.settings(*to), console=Reporter(), force=force)

    def types() -> list[str]:
        return [event["eventType"] for event in receiver.events]

    report()
    report()  # up to date: no run, no event
    assert types() == ["START", "COMPLETE"]
    assert named(receiver.events[1]["outputs"]).keys() == {"index.html"}
    reports.rename(tmp_path / "reports")
    reports.write_text("a file where a folder must be")
    with pytest.raises(OSError, match="reports"):
        report(force=True)
    assert types()[2:] == ["START", "FAIL"]
    message = receiver.events[-1]["run"]["facets"]["errorMessage"]["message"]
    assert message == all_runs(shelf.workspace)[-1].message
    reports.unlink()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("learn_spark.report.write.render", stop)  # the user stops the run
        with pytest.raises(KeyboardInterrupt):
            report(force=True)
    assert types()[4:] == ["START", "ABORT"]
    for event in receiver.events:
        check_valid(event)

    # A receiver that is gone, or that answers nothing, costs a warning; the file gets the events all the same.
    capsys.readouterr()
    for state in ("gone", "silent"):
        gate.be(state)
        report("openlineage.timeout_seconds=1", force=True)
        assert all_runs(shelf.workspace)[-1].status == "done"
        assert capsys.readouterr().out.count("warning: OpenLineage at http") == 1, state
    gate.close()
    assert len(receiver.events) == 6
    assert len(file.read_text(encoding="utf-8").splitlines()) == 10
    # So does a file for which no folder can be made.
    (tmp_path / "taken").write_text("a file where a folder must be")
    to = f"openlineage.file={tmp_path}/taken/logs/events.jsonl"
    run_stages(["report"], shelf.settings(to), console=Reporter(), force=True)
    assert all_runs(shelf.workspace)[-1].status == "done"
    assert capsys.readouterr().out.count(f"warning: OpenLineage at {tmp_path}/taken/logs/events.jsonl failed") == 1


def test_an_output_has_the_rows_that_the_run_wrote_into_it(tmp_path: Path) -> None:
    workspace, stage = Workspace.open(str(tmp_path / "w")), find_stage("ingest")
    file = tmp_path / "events.jsonl"
    observer = OpenLineageObserver(OpenLineageSettings(file=str(file)), workspace, Reporter(quiet=True))
    items = [{"item_id": f"i{number}", "title": "a lamp"} for number in range(5)]

    def told(**outputs: str) -> dict[str, Event]:
        """The statistics of the tables that a run which has just begun wrote."""
        observer.finished(stage, replace(begun, status="done", outputs=outputs))
        event = json.loads(file.read_text(encoding="utf-8").splitlines()[-1])
        check_valid(event)
        return {
            one["name"].rpartition("/")[2]: {key: one["outputFacets"]["outputStatistics"][key] for key in COUNTED}
            for one in event["outputs"]
            if one["outputFacets"]
        }

    begun = Run("20240101T000000-a", "ingest", "running", "c", "v", {}, {}, {}, 1.0, datetime(2024, 1, 1, tzinfo=UTC))
    observer.started(stage, begun)
    plant(workspace, "items", items[:3])
    (first,) = (workspace.root / "tables" / "items").glob("*.parquet")
    assert told(items="0") == {"items": {"rowCount": 3, "size": first.stat().st_size, "fileCount": 1}}
    observer.started(stage, begun)
    plant(workspace, "items", items[3:])
    plant(workspace, "item_index", [{"item_id": "i0", "item_index": 1}])
    (second,) = set((workspace.root / "tables" / "items").glob("*.parquet")) - {first}
    wrote = told(items="1", item_index="0")
    assert wrote["items"] == {"rowCount": 2, "size": second.stat().st_size, "fileCount": 1}
    assert wrote["item_index"]["rowCount"] == 1
    # A table that the run left as it was, and one whose log no longer has the run's commit.
    observer.started(stage, begun)
    assert told(items="1")["items"] == {"rowCount": 0, "size": 0, "fileCount": 0}
    observer.started(stage, begun)
    assert told(items="2") == {}


def every_event(workspace: Workspace) -> Iterator[Event]:
    """An event of each stage in each state: it reads and writes what any stage may."""
    from openlineage.client.serde import Serde

    read = {"files:/data/raw": "c1", "run": "20240101T000000-b", "encoder": "e1", "model": "m1"}
    wrote = {"models/m1": "m1", "indexes/r1": "h1", "reports/index.html": "h2"}
    for stage in all_stages():
        for status in ENDS:
            run = Run(
                run_id="20240101T000000-a",
                job=stage.name,
                status=status,
                config_hash="c",
                code_version="v",
                inputs=read | dict.fromkeys(stage.reads, "3"),
                outputs={} if status == "running" else wrote | dict.fromkeys(stage.writes, "4"),
                counts={} if status == "running" else {"rows": 5, "texts": 2},
                seconds=1.25,
                started_at=datetime(2024, 1, 1, tzinfo=UTC),
                message="it stopped at row 3" if status in ("failed", "refused", "aborted") else None,
            )
            yield json.loads(Serde.to_json(event_of(stage, run, workspace, "shop", {})))


def test_events_of_every_stage_in_every_state_are_valid(tmp_path: Path) -> None:
    events = list(every_event(Workspace.open(str(tmp_path / "w"))))
    for event in events:
        check_valid(event)
    assert len(events) == len(all_stages()) * len(ENDS)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda one: one["run"].pop("runId"), "$.run: 'runId' is a required property"),
        (lambda one: one["run"].update(runId="run 1"), "$.run.runId: 'run 1' is not a 'uuid'"),
        (lambda one: one.update(eventTime="2024-01-01 00:00"), "$.eventTime: "),
        (lambda one: one.update(eventType="DONE"), "$.eventType: 'DONE' is not one of"),
        (lambda one: one.update(inputs={}), "$.inputs: {} is not of type 'array'"),
        (lambda one: one["outputs"][0].update(version="3"), "$.outputs[0]: Additional properties are not allowed"),
        (lambda one: one["inputs"][0]["facets"]["version"].update(datasetVersion=3), "3 is not of type 'string'"),
        (lambda one: one["run"]["facets"]["tags"]["tags"][0].pop("value"), "'value' is a required property"),
        (lambda one: one["job"]["facets"]["jobType"].pop("_producer"), "'_producer' is a required property"),
        (lambda one: one["job"]["facets"].update(tags=one["run"]["facets"]["tags"]), "names no JobFacet"),
    ],
)
def test_the_schema_of_the_tests_finds_what_is_wrong(
    spoil: Callable[[Event], Any], reason: str, tmp_path: Path
) -> None:
    event = next(one for one in every_event(Workspace.open(str(tmp_path))) if one["eventType"] == "COMPLETE")
    check_valid(event)
    wrong = deepcopy(event)
    spoil(wrong)
    (found,) = errors_of(wrong)
    assert reason in found


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("s3://bucket/shop/tables/items", ("s3://bucket", "shop/tables/items")),
        ("hdfs://node:8020/shop", ("hdfs://node:8020", "shop")),
        ("/data/shop", ("file", "/data/shop")),
        ("package:recbole/data", ("learn-spark", "package:recbole/data")),
        ("s3://bucket", ("s3://bucket", "/")),
    ],
)
def test_datasets_are_named_by_store_and_path(place: str, name: tuple[str, str]) -> None:
    assert name_of(StoragePath(place)) == name
