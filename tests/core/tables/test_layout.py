"""Workspaces of another layout end with one sentence; new ones are marked."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from typer.testing import CliRunner

from learn_spark.commands.main import app
from learn_spark.core.errors import SettingsError
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.layout import LAYOUT, MARKER, WorkspaceLayoutError
from learn_spark.core.tables.log import append_rows, read_rows
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from tests.report.planted import plant


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


@pytest.mark.parametrize("name", ["w%20x", "w#x", "w[a]", "w\\x", "w?", "w{a}", "w*x", "w\nx", "a%b/w"])
def test_a_path_that_spark_and_delta_misread_is_refused_before_anything_is_made(tmp_path: Path, name: str) -> None:
    for open_it in (Workspace.open, Workspace.existing, Workspace.planned):
        with pytest.raises(SettingsError, match="do not read as a part of a name") as refused:
            open_it(str(tmp_path / name))
        assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["w x", "wé", "w'x", "w+x", "w(1)", "w=1", "w:z"])
def test_other_paths_are_workspaces_in_one_folder(tmp_path: Path, name: str) -> None:
    workspace = Workspace.open(str(tmp_path / name))
    row = {"encoder_key": "e", "text_key": "t", "embedding": [1.0], "n_tokens": 1}
    for _ in range(2):
        plant(workspace, "text_embeddings", [row])
    append_rows(workspace.table("item_index"), contract("item_index"), [{"item_id": "a", "item_index": 1}])
    assert Snapshot.open(workspace.table("text_embeddings")).to_arrow().num_rows == 2
    assert read_rows(workspace.table("item_index")) == [{"item_id": "a", "item_index": 1}]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert Workspace.existing(str(tmp_path / name)) == workspace


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
