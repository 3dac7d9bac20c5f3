"""A workspace of a folder that is copied to S3 goes on there, whatever instant its runs are killed at."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from typer.testing import CliRunner

import learn_spark as ls
from learn_spark.commands.main import app
from learn_spark.core.console import Reporter
from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.storage.locks import LockedError
from learn_spark.core.storage.path import S3Access, StoragePath, storage_path
from learn_spark.core.tables import log, runs, snapshot
from learn_spark.core.tables.contracts import all_tables, contract
from learn_spark.core.tables.runs import all_runs, record
from learn_spark.core.tables.snapshot import Snapshot, current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import ledger, states
from learn_spark.features.read import read_release, released_arrow
from learn_spark.pipeline.locks import writing
from learn_spark.pipeline.runner import Outcome, run_stages
from tests.places import copy_place
from tests.servers import ROOT, LostAnswers
from tests.world import START, event_lines, write_config, write_raw

# What the page says to copy. Locks, caches and logs stay behind.
COPIED = ("tables", "models", "indexes", "rankings", "studies", "reports", "runs")
NEW_DELIVERY = ["ingest", "item_text", "embed_items", "histories", "publish", "export_index"]


@dataclass(frozen=True)
class Road:
    """A workspace in a folder after the whole road, and a new delivery for it."""

    folder: Path
    config: Path

    def settings(self, *overrides: str) -> Settings:
        return load_settings(self.config, ["training.epochs=1", *overrides])

    def at(self, place: StoragePath, scratch: Path, server: str | None = None) -> list[str]:
        """The settings of the workspace at another place."""
        access = [] if place.is_local else [f"storage.endpoint={server or place.s3.server}"]
        return [f"workspace={place}", f"scratch={scratch}", *access]

    def copy(self, place: StoragePath) -> None:
        """Copy what the page says to ``place``."""
        here = storage_path(self.folder / "workspace")
        for name in COPIED:
            copy_place(here / name, place / name)
        (place / "workspace.json").write_bytes((here / "workspace.json").read_bytes())

    @contextmanager
    def delivered(self) -> Iterator[None]:
        """The raw files with a new delivery: later ratings of six users, a user who is new, and a broken line."""
        raw, later = self.folder / "raw", START + 9_000_000
        kept = self.folder / "raw-before"
        shutil.copytree(raw, kept)
        new = [f"{user}\t{user + 3}\t4\t{later + user}" for user in range(1, 7)]
        new += [f"99\t{film}\t5\t{later + film}" for film in range(1, 8)]
        write_raw(raw, events=[*event_lines(), *new, "7\t5\tgood\tyesterday"])
        try:
            yield
        finally:
            shutil.rmtree(raw)
            kept.rename(raw)


def run(settings: Settings, *stages: str) -> list[Outcome]:
    return run_stages(stages or settings.pipeline.stages, settings, console=Reporter(quiet=True))


def opened(settings: Settings) -> Workspace:
    return Workspace.existing(settings.place, settings.scratch)


def versions(workspace: Workspace) -> dict[str, int | None]:
    return {table: current_version(workspace.table(table)) for table in all_tables()}


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory, tiny_llm: Path, spark: object) -> Road:
    folder = tmp_path_factory.mktemp("road")
    raw = write_raw(folder / "raw")
    made = Road(folder, write_config(folder / "small.yaml", raw=raw, workspace=folder / "workspace", model=tiny_llm))
    run(made.settings())
    return made


def test_a_workspace_that_is_copied_to_s3_goes_on_there(road: Road, bucket: StoragePath, tmp_path: Path) -> None:
    here = opened(road.settings())
    before = {table: released_arrow(here, table) for table in ("user_features", "item_features")}
    place, old = bucket / "moved", read_release(here)
    road.copy(place)
    settings = road.settings(*road.at(place, tmp_path / "scratch"))
    there = opened(settings)
    # Nothing is to be done, and nothing is done.
    known = versions(there)
    assert known == versions(here)
    assert [one.stage.name for one in run(settings) if not one.up_to_date] == []
    assert versions(there) == known
    with road.delivered():
        outcomes = {one.stage.name: one for one in run(settings, *NEW_DELIVERY)}
    assert [name for name, one in outcomes.items() if not one.up_to_date] == [
        "ingest",
        "histories",
        "publish",
        "export_index",
    ]
    assert outcomes["ingest"].run.counts["refused"] == 1
    new = read_release(there)
    assert new.release_id != old.release_id
    users = released_arrow(there, "user_features")
    assert set(users["user_id"].to_pylist()) == {*before["user_features"]["user_id"].to_pylist(), "99"}
    # The release of before the move has the vectors of before.
    for table, rows in before.items():
        assert released_arrow(there, table, old.release_id).equals(rows)
    # The old place knows nothing of it.
    assert read_release(here) == old
    ws = ls.open(str(place), [f"storage.endpoint={place.s3.server}"])
    assert ws.features("user_features").equals(users)
    assert ws.settings.workspace == str(place)
    assert ws.recommend("99", k=3)
    assert f'"{new.release_id}"' in (place / "tables" / "released.json").read_text()


# (part of the path of an upload, which of them, whether the server gets it): where a run is killed, in this order.
INSTANTS = (
    ("/locks/leases/_delta_log/", 1, True),
    ("/tables/interactions/part-", 1, False),
    ("/tables/interactions/_delta_log/", 1, False),
    ("/tables/interactions/_delta_log/", 1, True),
    ("/tables/raw_files/_delta_log/", 1, False),
    ("/tables/runs/_delta_log/", 1, False),
    ("/tables/user_histories/_delta_log/", 1, False),
    ("/tables/user_histories/_delta_log/", 1, True),
    ("/tables/user_features/_delta_log/", 1, True),
    ("/tables/releases/_delta_log/", 2, True),
)
RUN = (sys.executable, "-c", "from learn_spark.commands.main import main; main()", "run", "--wait", "--config")
# Tables in HDFS (another version of it appears) or folders (another file does), at which a run is killed, in order.
MOMENTS = (
    ("tables/interactions", "interactions"),
    ("tables/raw_files", "interactions"),
    ("tables/user_histories", "user_histories"),
    ("staged", "user_features"),
    ("tables/releases", "user_features"),
)
# Differ between two runs of one delivery: ids of runs, of releases (by versions of tables), and times of writing.
OF_A_RUN = {"run_id", "read_at", "written_at", "refused_at", "release_id"}


def rows_of(workspace: Workspace) -> dict[str, list[str]]:
    """The rows of all tables of the delivery in any order, without what differs between two runs."""
    found = {}
    for table in ("items", "item_index", "interactions", "quarantine", "raw_files", "user_histories"):
        found[table] = Snapshot.open(workspace.table(table)).to_arrow()
    for features in ("user_features", "item_features"):
        found[features] = released_arrow(workspace, features)  # type: ignore[arg-type]
    return {table: as_text(table, rows) for table, rows in found.items()}


def as_text(table: str, rows: pa.Table) -> list[str]:
    columns = [name for name in contract(table).names if name not in OF_A_RUN]
    return sorted(map(str, rows.select(columns).to_pylist()))


def test_runs_that_are_killed_at_ten_instants_give_the_tables_of_a_run_that_is_not(
    road: Road, bucket: StoragePath, tmp_path: Path
) -> None:
    assert bucket.s3.server is not None
    whole, killed = road.settings(f"workspace={tmp_path / 'whole'}"), bucket / "killed"
    road.copy(storage_path(tmp_path / "whole"))
    road.copy(killed)
    stages = "pipeline.stages=[ingest, histories, publish]"
    environment = {**os.environ, "LEARN_SPARK_LEASE_SECONDS": "6", "PYTHONPATH": str(ROOT)}
    reached, log = [], tmp_path / "children.log"
    with road.delivered(), LostAnswers(bucket.s3.server, "", lose=0) as proxy, log.open("wb") as output:
        run(whole, "ingest", "histories", "publish")
        overrides = ["training.epochs=1", stages, *road.at(killed, tmp_path / "scratch", proxy.url)]
        command = [*RUN, str(road.config), *(part for one in overrides for part in ("--set", one))]
        for part, number, after in INSTANTS:
            proxy.hold(part, number, after=after)
            child = subprocess.Popen(
                command, env=environment, cwd=ROOT, stdout=output, stderr=output, start_new_session=True
            )
            while not proxy.held():
                assert child.poll() is None, f"{part} was never written: {log.read_text(encoding='utf-8')[-3000:]}"
            # A second writer beside it is refused, with the name of the first.
            with (
                pytest.raises(LockedError) as refused,
                writing(Workspace.existing(killed), ["interactions", "user_histories"], "the second"),
            ):
                pass
            assert f"process {child.pid} on " in str(refused.value)
            # With its JVM, which would send the upload again for as long as it lives.
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            proxy.drop()
            reached.append(part)
        last = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
        assert last.returncode == 0, last.stdout + last.stderr
    assert len(reached) == len(INSTANTS) == 10
    require_the_same(opened(whole), Workspace.existing(StoragePath(killed, S3Access(bucket.s3.server))))


def require_the_same(whole: Workspace, killed: Workspace) -> None:
    """Both have the same rows of the new delivery, and one release more than before."""
    ours, theirs = rows_of(whole), rows_of(killed)
    for table, rows in theirs.items():
        assert rows == ours[table], table
    assert len(ours["interactions"]) == len(event_lines()) + 13
    assert len(ours["quarantine"]) == 1
    for workspace in (whole, killed):
        assert len({row.release_id for row in ledger(workspace) if row.status == "released"}) == 2
        assert {state.status for state in states(ledger(workspace)).values()} == {"released"}


def progress(place: StoragePath, part: str) -> int:
    """The version of a table, or the number of files of a folder."""
    if part.startswith("tables/"):
        version = current_version(place / part)
        return -1 if version is None else version
    return sum(1 for _ in (place / part).files())


def test_runs_that_are_killed_in_hdfs_give_the_tables_of_a_run_that_is_not(
    road: Road, hdfs: StoragePath, tmp_path: Path
) -> None:
    whole, killed = road.settings(f"workspace={tmp_path / 'whole'}"), hdfs / "killed"
    road.copy(storage_path(tmp_path / "whole"))
    road.copy(killed)
    stages = ["ingest", "histories", "publish"]
    environment = {**os.environ, "LEARN_SPARK_LEASE_SECONDS": "6", "PYTHONPATH": str(ROOT)}
    overrides = [f"workspace={killed}", f"scratch={tmp_path / 'scratch'}", "training.epochs=1"]
    given = [str(road.config), *(part for one in overrides for part in ("--set", one))]
    command, log = [*RUN, *given, "--set", f"pipeline.stages=[{', '.join(stages)}]"], tmp_path / "children.log"
    with road.delivered(), log.open("wb") as output:
        run(whole, *stages)
        for part, written in MOMENTS:
            before = progress(killed, part)
            child = subprocess.Popen(
                command, env=environment, cwd=ROOT, stdout=output, stderr=output, start_new_session=True
            )
            try:
                while progress(killed, part) <= before:
                    assert child.poll() is None, f"{part} was never written: {log.read_text(encoding='utf-8')[-3000:]}"
                    time.sleep(0.03)
                # It stops there. A second writer is refused, with the name of the first, until the leases end.
                os.killpg(child.pid, signal.SIGSTOP)
                with (
                    pytest.raises(LockedError) as refused,
                    writing(Workspace.existing(killed), [written], "the second"),
                ):
                    pass
                assert f"process {child.pid} on " in str(refused.value)
                if written == "interactions":
                    second = CliRunner().invoke(app, ["ingest", "--config", *given])
                    assert second.exit_code == 1
                    assert f"process {child.pid} on " in second.output
            finally:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        last = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
        assert last.returncode == 0, last.stdout + last.stderr
    require_the_same(opened(whole), Workspace.existing(killed))


def test_ten_thousand_runs_are_read_once_by_a_run_that_has_nothing_to_do(
    road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = storage_path(tmp_path / "old")
    road.copy(place)
    settings = road.settings(*road.at(place, tmp_path / "scratch"))
    workspace = opened(settings)
    here = all_runs(workspace)
    jobs = [one.job for one in here]
    old = [
        replace(here[0], run_id=f"old-{n}", job=jobs[n % len(jobs)], config_hash="other", outputs={}, sequence=n + 1)
        for n in range(10_000)
    ]
    rows = [asdict(one) for one in (*old, *(replace(one, sequence=10_000 + one.sequence) for one in here))]
    path = workspace.table("runs")
    write_deltalake(str(path), pa.Table.from_pylist(rows, contract("runs").arrow_schema()), mode="overwrite")
    monkeypatch.setattr(runs, "_read", {})  # as in a process of its own
    reads: list[tuple[str, int]] = []
    plain = snapshot.rows_of

    def counted(table: DeltaTable, path: StoragePath, *given: Any, **more: Any) -> pa.Table:
        rows = plain(table, path, *given, **more)
        reads.append((path.name, rows.num_rows))
        return rows

    for module in (log, snapshot):
        monkeypatch.setattr(module, "rows_of", counted)
    assert [one.stage.name for one in run(settings) if not one.up_to_date] == []
    assert reads.count(("runs", 10_000 + len(here))) == 1
    assert [table for table, _ in reads].count("runs") == 1
    # A run that is recorded is the only row that is read then, and its files are few.
    reads.clear()
    record(workspace, replace(here[-1], run_id="new", sequence=None))
    assert [one.run_id for one in all_runs(workspace)[-2:]] == [here[-1].run_id, "new"]
    assert ("runs", 1) in reads
    assert sum(rows for table, rows in reads if table == "runs") == 1
    assert len(Snapshot.open(path).files) <= 9
