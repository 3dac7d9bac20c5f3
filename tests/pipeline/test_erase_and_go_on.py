"""After an erasure the next runs go on, and give the tables of a workspace that never had the users."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.storage.path import StoragePath, storage_path
from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.erasure import erase as erasure
from learn_spark.pipeline.retain import plan_retention
from learn_spark.pipeline.runner import Outcome
from tests.pipeline.test_erase import run as erase
from tests.pipeline.traces import traces
from tests.places import copy_place
from tests.world import write_config

Run = Callable[..., list[Outcome]]
ANNA, BOB, CARLA = "anna-0001", "bob-0002", "carla-0003"
HEADER = "order,customer,sku,at"
COLUMNS = "{event_id: order, user_id: customer, item_id: sku, event_time: at}"


def settings_of(folder: Path, raw: Path, *overrides: str) -> Settings:
    folder.mkdir(exist_ok=True)
    config = write_config(folder / "c.yaml", raw=raw, workspace=folder / "workspace", model=folder)
    source = (
        f"source={{format: files, path: '{raw}', time_unit: iso, "
        "items: {files: items.csv, columns: {item_id: sku}}, "
        f"events: {{files: 'orders-*.csv', columns: {COLUMNS}}}}}"
    )
    return load_settings(config, [source, *overrides])


def order(number: int, user: str, at: datetime, sku: str = "") -> str:
    return f"{user}-{number},{user},{sku or f's{number % 5}'},{at:%Y-%m-%dT%H:%M:%S}"


def deliver(raw: Path, name: str, lines: list[str]) -> None:
    raw.mkdir(parents=True, exist_ok=True)
    (raw / "items.csv").write_text("sku\n" + "".join(f"s{number}\n" for number in range(5)))
    (raw / f"orders-{name}.csv").write_text("\n".join([HEADER, *lines]) + "\n")


def rows(workspace: Workspace, table: str) -> list[dict[str, object]]:
    read = Snapshot.open(workspace.table(table)).to_arrow().to_pylist()
    return sorted(read, key=lambda row: str(row))


def test_erased_users_stay_out_and_runs_go_on_without_them(run: Run, tmp_path: Path, spark: object) -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    raw, settings = tmp_path / "raw", settings_of(tmp_path, tmp_path / "raw")
    users = (ANNA, BOB, CARLA, *(f"user-{number:04}" for number in range(9)))
    first = [order(n, user, start + timedelta(days=n)) for user in users for n in range(6)]
    broken = [f"x1,{ANNA},s1,yesterday", f"x2,{BOB},s1,yesterday", f"x3,,s1,2024-01-01T00:00:00,{ANNA}"]
    deliver(raw, "1", [*first, order(9, ANNA, start, sku="unknown"), *broken])
    run(settings, "ingest", "histories")
    workspace = Workspace.existing(settings.place)
    assert len(rows(workspace, "quarantine")) == 4

    # Anna has a twelfth of the events, of which the gates allow a hundredth to go.
    done = erase(settings, tmp_path, ANNA)
    assert done.found.rows == {"interactions": 6, "quarantine": 3, "user_histories": 1}
    assert traces(workspace.root, [ANNA]) == []
    # Runs from before name versions that are gone, which retention does not look for.
    retention = plan_retention(workspace, settings, releases=1, days=0)
    assert retention.keep_versions["interactions"] == [2]
    # A second deletion of the same files would be a new version, which stages would run again for.
    assert not {"interactions", "user_histories"} & {one.name for one in retention.removable if one.kind == "files"}
    unchanged = run(settings, "ingest", "histories")
    assert unchanged[1].run.counts.get("users_rebuilt", 0) == 0

    # The files of before again, with a correction of Bob's; and then Anna orders once more.
    later = datetime.now(UTC) + timedelta(hours=1)
    second = [order(20, BOB, start + timedelta(days=50)), order(2, ANNA, start + timedelta(days=2), sku="s4")]
    deliver(raw, "2", [*second, *broken])
    ingest, histories = run(settings, "ingest", "histories")
    assert {name: ingest.run.counts[name] for name in ("interactions", "erased")} == {"interactions": 1, "erased": 2}
    assert histories.run.counts["users_rebuilt"] == 1
    assert traces(workspace.root, [ANNA]) == []
    (forced,) = run(settings, "ingest", force=True)
    assert forced.run.counts["erased"] == 6 + 1 + 1 + 1 + 1
    assert traces(workspace.root, [ANNA]) == []
    deliver(raw, "3", [order(30, ANNA, later)])
    run(settings, "ingest", "histories")

    other = settings_of(tmp_path / "other", tmp_path / "other" / "raw")
    kept = [line for line in first if ANNA not in line]
    deliver(tmp_path / "other" / "raw", "1", [*kept, broken[1]])
    deliver(tmp_path / "other" / "raw", "2", [second[0], broken[1]])
    deliver(tmp_path / "other" / "raw", "3", [order(30, ANNA, later)])
    run(other, "ingest", "histories")
    never_had = Workspace.existing(other.place)
    for table in ("interactions", "user_histories"):
        assert rows(workspace, table) == rows(never_had, table)
    raws = [[row["raw"] for row in rows(one, "quarantine")] for one in (workspace, never_had)]
    assert raws[0] == raws[1]


def traces_at(place: StoragePath, folder: Path, needles: list[str]) -> list[str]:
    """``traces`` of a place, which is copied to ``folder`` where it is an address."""
    if place.is_local:
        return traces(place.local, needles)
    shutil.rmtree(folder, ignore_errors=True)
    copy_place(place, storage_path(folder))
    return traces(folder, needles)


def test_a_killed_erasure_is_completed_by_the_same_command(
    run: Run, tmp_path: Path, spark: SparkSession, place: StoragePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    place = place / "workspace"
    access = [] if place.is_local else [f"storage.endpoint={place.s3.server}"]
    here = [f"workspace={place}", f"scratch={tmp_path / 'scratch'}", *access]
    settings = settings_of(tmp_path, tmp_path / "raw", *here)
    lines = [order(n, user, start + timedelta(days=n)) for user in (ANNA, BOB, CARLA) for n in range(4)]
    deliver(tmp_path / "raw", "1", [*lines, f"x1,{ANNA},s1,yesterday"])
    run(settings, "ingest", "histories")
    workspace = Workspace.existing(settings.place, settings.scratch)
    purge = erasure.purge

    for number in (1, 2, 3) if place.is_local else (2,):
        left = [number]

        def killed(session: SparkSession, path: str, left: list[int] = left) -> int:
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
            return purge(session, path)

        monkeypatch.setattr(erasure, "purge", killed)
        with pytest.raises(KeyboardInterrupt):
            erase(settings, tmp_path, ANNA)
        newest = max(read_rows(workspace.table("erasures")), key=lambda row: row["written_at"])
        assert newest["status"] == "started"
    # A run that was killed before it said that it began has remembered its users all the same.
    monkeypatch.setattr(erasure._Work, "_record", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        erase(settings, tmp_path, ANNA, CARLA)
    with pytest.raises(LearnSparkError, match="1 of its users are not in the file"):
        erase(settings, tmp_path, ANNA)
    monkeypatch.undo()
    assert traces_at(workspace.place / "tables", tmp_path / "copy", [ANNA]) != []
    with pytest.raises(LearnSparkError, match="2 of its users are not in the file"):
        erase(settings, tmp_path, BOB)
    done = erase(settings, tmp_path, ANNA, CARLA)
    assert done.unfinished is not None
    assert traces_at(workspace.place, tmp_path / "copy", [ANNA]) == traces(tmp_path / "scratch", [ANNA]) == []
    assert {row["user_id"] for row in rows(workspace, "user_histories")} == {BOB}
    _, histories = run(settings, "ingest", "histories")
    assert histories.run.counts["users_rebuilt"] == 1
    again = erase(settings, tmp_path, ANNA)
    assert (again.unknown, again.found.tables, again.unfinished) == (1, [], None)
