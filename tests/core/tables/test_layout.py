"""Workspaces of another layout end with one sentence; new ones are marked."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from typer.testing import CliRunner

from learn_spark.commands.main import app
from learn_spark.core.tables.layout import LAYOUT, MARKER, WorkspaceLayoutError
from learn_spark.core.tables.workspace import Workspace


def plant_old_histories(root: Path) -> None:
    """A user_histories of version 0.1.0: cut_length is now train_end, and there is no workspace.json."""
    rows = pa.table({"user_id": ["a"], "chunk": pa.array([0], pa.int32()), "cut_length": pa.array([3], pa.int32())})
    write_deltalake(str(root / "tables" / "user_histories"), rows)


def test_a_new_workspace_is_marked_and_opens_again(tmp_path: Path) -> None:
    root = Workspace.open(str(tmp_path / "new")).root
    assert json.loads((root / MARKER).read_text()) == {"layout": LAYOUT}
    plant_old_histories(root)
    assert Workspace.open(str(root)).root == root
    assert [path.name for path in root.glob(".*.tmp")] == []


def test_an_old_workspace_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    plant_old_histories(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(WorkspaceLayoutError) as error:
        Workspace.open(str(tmp_path))
    for part in (str(tmp_path), "layout 1", f"layout {LAYOUT}", "--set workspace=FOLDER"):
        assert part in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", ["run --config learn", "histories --config learn", "status --config learn"])
def test_every_command_ends_with_one_sentence(command: str, tmp_path: Path) -> None:
    plant_old_histories(tmp_path)
    result = CliRunner().invoke(app, [*command.split(), "--set", f"workspace={tmp_path}"])
    assert result.exit_code == 1, result.output
    assert "layout 1" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("marker", "named"),
    [
        (json.dumps({"layout": LAYOUT + 1}), f"layout {LAYOUT + 1}"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"format": 2}', "is damaged"),
    ],
)
def test_a_newer_or_damaged_marker_is_named(marker: str, named: str, tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text(marker)
    with pytest.raises(WorkspaceLayoutError, match=named):
        Workspace.open(str(tmp_path))
