"""Tables written without a JVM keep the same contracts, and Spark reads them."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from deltalake import write_deltalake
from pyspark.sql import SparkSession

from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.contracts import ContractError, contract
from learn_spark.core.tables.log import append_rows, check_columns, read_rows
from learn_spark.core.tables.runs import Run, all_runs, last_done, new_run_id, record
from learn_spark.core.tables.snapshot import Snapshot, commit_mark, current_version
from learn_spark.core.tables.workspace import Workspace
from tests.servers import requests_of


def run(job: str, status: str = "done", minute: int = 0, **changes: Any) -> Run:
    values: dict[str, Any] = {
        "run_id": f"{job}-{minute}",
        "job": job,
        "status": status,
        "config_hash": "c",
        "code_version": "0123456789ab",
        "inputs": {"items": "3"},
        "outputs": {"item_text": "4", "models/abc": "abc"},
        "counts": {"rows_in": 5},
        "seconds": 1.5,
        "started_at": datetime(2024, 1, 1, 0, minute, tzinfo=UTC),
    }
    return Run(**{**values, **changes})


def test_runs_come_back_as_they_were(place: StoragePath, spark: SparkSession) -> None:
    workspace = Workspace.open(place)
    assert all_runs(workspace) == []
    runs = [run("a", minute=0), run("b", minute=2), run("a", "failed", 3, message="why"), run("a", minute=1)]
    for one in runs:
        record(workspace, one)
    # In the order of writing, whatever their clocks were.
    assert all_runs(workspace) == [replace(one, sequence=number) for number, one in enumerate(runs, 1)]
    newest = last_done(workspace, "a")
    assert newest is not None
    assert newest.run_id == "a-1"
    assert last_done(workspace, "c") is None
    by_spark = {row.run_id: row for row in spark.read.format("delta").load(workspace.table("runs").spark).collect()}
    assert by_spark["b-2"].outputs == {"item_text": "4", "models/abc": "abc"}
    assert by_spark["a-3"].message == "why"


def test_of_a_log_in_s3_a_reader_reads_each_commit_once(bucket: StoragePath) -> None:
    workspace, other = Workspace.open(bucket / "log"), "/log/tables/runs/_delta_log/0"
    for minute in range(4):
        record(workspace, run("a", minute=minute))
    assert len(all_runs(workspace)) == 4
    for minute in range(4, 7):
        append_rows(workspace.table("runs"), contract("runs"), [asdict(run("a", minute=minute))])
        before = requests_of(bucket, f"GET /{bucket.inner}{other}")
        assert len(all_runs(workspace)) == minute + 1
        assert 1 <= requests_of(bucket, f"GET /{bucket.inner}{other}") - before <= 2
    # A table that was made anew in its place is read anew.
    workspace.table("runs").remove()
    assert all_runs(workspace) == []
    for minute in range(9):
        record(workspace, run("b", minute=minute))
    assert {one.job for one in all_runs(workspace)} == {"b"}


def test_a_table_that_was_made_anew_behind_a_readers_back_is_read_anew(place: StoragePath) -> None:
    """With as many commits, so that its version is the same: a service goes on while a workspace is built again."""
    workspace, table = Workspace.open(place), contract("item_index")
    index = workspace.table("item_index")

    def build(name: str) -> None:
        for number in (1, 2):
            append_rows(index, table, [{"item_id": f"{name}{number}", "item_index": number}])
            record(workspace, run(name, minute=number))

    def seen() -> tuple[set[str], set[str], list[str], set[str]]:
        every, some = read_rows(index), read_rows(index, where=ds.field("item_index") == 1)
        runs, snapshot = all_runs(workspace), Snapshot.open(index).to_arrow(["item_id"])
        ids = [{str(row["item_id"]) for row in rows} for rows in (every, some)]
        return ids[0], ids[1], [one.run_id for one in runs], set(snapshot["item_id"].to_pylist())

    build("a")
    assert seen() == ({"a1", "a2"}, {"a1"}, ["a-1", "a-2"], {"a1", "a2"})
    marks = [commit_mark(path) for path in (index, workspace.table("runs"))]
    for _ in range(20):  # S3 has times of seconds
        (place / "tables").remove()
        build("b")
        if all(commit_mark(path) not in marks for path in (index, workspace.table("runs"))):
            break
    assert {mark[0] for mark in marks if mark} == {current_version(index), current_version(workspace.table("runs"))}
    assert seen() == ({"b1", "b2"}, {"b1"}, ["b-1", "b-2"], {"b1", "b2"})


def test_writers_that_all_find_no_table_make_one_and_lose_no_row(place: StoragePath) -> None:
    workspace = Workspace.open(place)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda minute: record(workspace, run("a", minute=minute)), range(8)))
    runs = all_runs(workspace)
    assert {one.run_id for one in runs} == {f"a-{minute}" for minute in range(8)}
    assert [one.sequence for one in runs] == list(range(1, 9))
    rows = [{**asdict(one), "sequence": None} for one in runs]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda row: append_rows(place / "new", contract("runs"), [row]), rows))
    assert len(read_rows(place / "new")) == 8
    with pytest.raises(ContractError, match="contract of runs"):
        record(workspace, run("a", seconds=-1.0))


@pytest.mark.parametrize(
    ("change", "expected"),
    [({"status": "perhaps"}, "contract of runs"), ({"seconds": -1.0}, "contract of runs"), ({"run_id": None}, "runs")],
)
def test_a_row_that_breaks_the_contract_is_refused(place: StoragePath, change: dict[str, Any], expected: str) -> None:
    workspace = Workspace.open(place)
    record(workspace, run("a"))
    with pytest.raises(ContractError, match=expected):
        record(workspace, run("a", **change))
    assert len(all_runs(workspace)) == 1
    with pytest.raises(ContractError, match="no column colour"):
        append_rows(workspace.table("runs"), contract("runs"), [{"colour": "red"}])


def test_run_ids_sort_by_time_and_differ() -> None:
    early, late = new_run_id(datetime(2024, 1, 1, tzinfo=UTC)), new_run_id(datetime(2024, 1, 2, tzinfo=UTC))
    assert early < late
    assert new_run_id(datetime(2024, 1, 1, tzinfo=UTC)) != early


def test_reading_many_times_never_aborts_the_interpreter_at_its_end(tmp_path: Path) -> None:
    # deltalake's own file system calls Python from Arrow's threads; with it about two of three of these died.
    workspace = Workspace.open(str(tmp_path))
    for minute in range(4):
        record(workspace, run("a", minute=minute))
    code = (
        "import sys\n"
        "from learn_spark.core.tables.log import read_rows\n"
        "from learn_spark.core.tables.workspace import Workspace\n"
        "for _ in range(5): read_rows(Workspace.open(sys.argv[1]).table('runs'))"
    )
    for _ in range(6):
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_table_has_no_rows(place: StoragePath) -> None:
    assert read_rows(place / "nothing") == []


def test_a_table_of_an_older_version_gets_the_new_columns_with_its_next_row(place: StoragePath) -> None:
    workspace = Workspace.open(place)
    old = pa.schema([field for field in contract("runs").arrow_schema() if field.name != "sequence"])
    rows = [{name: getattr(run("a", minute=minute), name) for name in old.names} for minute in (5, 3)]
    path = workspace.table("runs")
    write_deltalake(str(path), pa.Table.from_pylist(rows, schema=old), storage_options=path.delta_options)
    assert [one.run_id for one in all_runs(workspace)] == ["a-3", "a-5"]
    record(workspace, run("a", minute=0))
    assert [(one.run_id, one.sequence) for one in all_runs(workspace)] == [("a-3", None), ("a-5", None), ("a-0", 3)]


def test_a_table_with_other_columns_is_not_written_to(place: StoragePath) -> None:
    path = place / "runs"
    held = pa.schema([field for field in contract("runs").arrow_schema() if field.name != "job"])
    table = held.append(pa.field("mood", pa.string())).empty_table()
    write_deltalake(str(path), table, storage_options=path.delta_options)
    with pytest.raises(ContractError, match=r"\(missing: job; not in the contract: mood\); another version"):
        append_rows(path, contract("runs"), [])
    with pytest.raises(ContractError, match=r"missing: job"):
        check_columns(path, contract("runs"))
    check_columns(place / "nothing", contract("runs"))
