"""Runs of two processes in one workspace: those that write one table exclude each other, and nobody else."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from learn_spark.core.settings import load_settings
from learn_spark.core.stages.registry import find_stage
from learn_spark.core.storage.locks import LockedError
from learn_spark.core.tables.runs import all_runs
from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.locks import exclusively_written, whole_workspace, writing
from tests.world import write_config

COMMAND = (sys.executable, "-c", "from learn_spark.commands.main import main; main()")


def test_a_second_ingest_is_refused_before_it_reads_anything(tmp_path: Path) -> None:
    config = write_config(tmp_path / "shop.yaml", raw=tmp_path / "raw", workspace=tmp_path / "w", model=tmp_path)
    workspace = Workspace.open(load_settings(config).workspace)
    with writing(workspace, exclusively_written([find_stage("ingest")]), "a run of ingest") as held:
        held.at("stage ingest, 1 of 2")
        second = subprocess.run([*COMMAND, "ingest", "--config", str(config)], capture_output=True, text=True)
    assert second.returncode == 1
    # On a busy machine a sign of life comes before it.
    assert second.stderr.splitlines()[-1].startswith("error: interactions in the workspace")
    assert "a run of ingest (process " in second.stderr
    assert "UTC, now at stage ingest, 1 of 2)" in second.stderr
    assert second.stderr.rstrip().endswith("--wait")
    assert all_runs(workspace) == []


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        (("ingest", "histories"), ("histories",), {"user_histories"}),
        (("ingest",), ("histories", "train", "evaluate"), set()),
        (("train", "evaluate"), ("train", "evaluate"), set()),
        (("publish",), ("publish",), {"item_features", "releases", "user_features"}),
        (("export_index",), ("export_index",), {"indexes"}),
        (("ingest",), ("exposures",), {"quarantine"}),
    ],
)
def test_stages_exclude_each_other_by_what_they_write(
    tmp_path: Path, first: tuple[str, ...], second: tuple[str, ...], shared: set[str]
) -> None:
    workspace = Workspace.open(str(tmp_path))
    names = [exclusively_written(map(find_stage, stages)) for stages in (first, second)]
    assert names[0] & names[1] == shared
    with writing(workspace, names[0], "the first"):
        if shared:
            with pytest.raises(LockedError) as refused, writing(workspace, names[1], "the second"):
                pass
            assert refused.value.resource.startswith(min(shared))
            assert refused.value.holder.startswith("the first (process ")
        else:
            with writing(workspace, names[1], "the second"):
                pass
    with writing(workspace, names[1], "the second"), pytest.raises(LockedError), whole_workspace(workspace, "retain"):
        pass
    with whole_workspace(workspace, "retain"):
        pass


def test_a_second_run_waits_and_says_for_whom(tmp_path: Path) -> None:
    workspace, lines = Workspace.open(str(tmp_path)), []
    release = threading.Event()

    def say(text: str) -> None:
        lines.append(text)
        release.set()

    def first() -> None:
        with writing(workspace, ("items",), "a run of ingest"):
            started.set()
            release.wait(60)

    started = threading.Event()
    other = threading.Thread(target=first)
    other.start()
    started.wait(60)
    # It waits until it has said for whom: then the first one ends.
    with writing(workspace, ("interactions", "items"), "the second", wait=True, say=say):
        other.join(60)
        with pytest.raises(LockedError), writing(workspace, ("interactions",), "a third"):
            pass
    assert "a run of ingest (process " in lines[0]
    release.clear()
    other = threading.Thread(target=first)
    started.clear()
    other.start()
    started.wait(60)
    with whole_workspace(workspace, "retain", wait=True, say=say):
        other.join(60)
    assert len(lines) >= 2
