"""Leases exclude as locks do, are free some time after their holder died, and who lost them commits nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from learn_spark.core.storage.locks import LockedError
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.leases import LeaseLostError, lease
from learn_spark.core.tables.log import append_rows, read_rows
from learn_spark.core.tables.workspace import Workspace
from learn_spark.core.tables.workspace_locks import only_one, only_user, writer_of

ITEM = {"item_id": "a", "item_index": 1}
# Takes a lease, says so, and stays until it is killed.
HOLDER = """
import sys, time
from learn_spark.core.storage.path import S3Access, StoragePath
from learn_spark.core.tables.leases import lease
place = StoragePath(sys.argv[1], S3Access(endpoint=sys.argv[2] or None))
with lease(place, [("items", "exclusive")], "the workspace", "a run of ingest") as held:
    held.at("stage ingest")
    print("taken", flush=True)
    time.sleep(600)
"""


def holder(place: StoragePath) -> subprocess.Popen[str]:
    """Another process that has the lease ``items``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, place, place.s3.server or ""], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "taken\n"
    return process


def test_a_second_holder_is_refused_until_the_first_one_ends(
    place: StoragePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEARN_SPARK_LEASE_SECONDS", "12")
    with lease(place, [("workspace", "shared"), ("items", "exclusive")], "the workspace", "a run of ingest") as held:
        held.at("stage ingest")
        time.sleep(4)  # until the next renewal, which writes it
        with (
            pytest.raises(LockedError) as refused,
            lease(place, [("workspace", "shared"), ("items", "exclusive")], "the workspace", "a run of item_text"),
        ):
            pass
        assert "items in the workspace" in refused.value.resource
        assert "a run of ingest" in refused.value.holder
        assert "now at stage ingest" in refused.value.holder
        # Others things, and the shared lease, are free; all of them together are not.
        with lease(place, [("workspace", "shared"), ("models", "exclusive")], "the workspace", "a run of train"):
            pass
        with pytest.raises(LockedError), lease(place, [("workspace", "exclusive")], "the workspace", "retain"):
            pass
    with lease(place, [("workspace", "exclusive")], "the workspace", "retain"):
        pass
    assert (place / "locks" / "holders").children() == []


def test_of_many_that_take_at_once_one_has_it(place: StoragePath) -> None:
    inside, most, taken = [0], [0], []

    def work(number: int) -> None:
        while True:
            try:
                with lease(place, [("items", "exclusive")], "the workspace", f"job {number}"):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    taken.append(number)
                    time.sleep(0.05)
                    inside[0] -= 1
                    return
            except LockedError:
                time.sleep(0.1)

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(work, range(5)))
    assert most == [1]
    assert sorted(taken) == list(range(5))


def test_the_lease_of_a_killed_process_is_free_after_its_time(
    place: StoragePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEARN_SPARK_LEASE_SECONDS", "4")
    process = holder(place)
    try:
        # Renewed again and again: it outlives its first seconds.
        time.sleep(6)
        with pytest.raises(LockedError, match="run of ingest"), lease(place, [("items", "shared")], "w", "other"):
            pass
    finally:
        process.kill()
        process.wait()
    killed = time.monotonic()
    while True:
        try:
            with lease(place, [("items", "exclusive")], "the workspace", "the next run"):
                # Nothing is left of the process that was killed.
                assert len((place / "locks" / "holders").names()) == 1
                break
        except LockedError:
            assert time.monotonic() - killed < 60
            time.sleep(0.5)


def test_a_holder_that_could_not_renew_commits_nothing(place: StoragePath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEARN_SPARK_LEASE_SECONDS", "2")
    path, table = place / "tables" / "item_index", contract("item_index")
    with lease(place, [("item_index", "exclusive")], "the workspace", "a run of ingest"):
        append_rows(path, table, [ITEM])
        # The store does not answer the holder any more.
        monkeypatch.setattr(StoragePath, "write_text", lambda self, text: (_ for _ in ()).throw(OSError("no answer")))
        time.sleep(2.5)
        monkeypatch.undo()
        monkeypatch.setenv("LEARN_SPARK_LEASE_SECONDS", "2")
        # It answers again, but somebody else may have the lease now.
        time.sleep(0.5)
        with pytest.raises(LeaseLostError):
            append_rows(path, table, [{"item_id": "b", "item_index": 2}])
        with lease(place, [("item_index", "exclusive")], "the workspace", "the next run"):
            pass
    assert read_rows(path) == [ITEM]
    append_rows(path, table, [{"item_id": "b", "item_index": 2}])
    assert len(read_rows(path)) == 2


def test_a_workspace_has_the_same_rules_in_a_folder_and_at_an_address(place: StoragePath, tmp_path: Path) -> None:
    workspace = Workspace.open(place, str(tmp_path / "scratch"))
    with writer_of(workspace, ["items"], "a run of ingest"):
        with pytest.raises(LockedError, match="run of ingest"), writer_of(workspace, ["items", "models"], "another"):
            pass
        with writer_of(workspace, ["models"], "a run of train"), only_one(workspace, "training-1", "it", "train"):
            with pytest.raises(LockedError), only_one(workspace, "training-1", "it", "train"):
                pass
            with only_one(workspace, "training-2", "it", "train"):
                pass
        with pytest.raises(LockedError), only_user(workspace, "retain"):
            pass
    with only_user(workspace, "retain"), pytest.raises(LockedError), writer_of(workspace, ["items"], "ingest"):
        pass
