"""learn-spark releases, show, withdraw, rollback: output, added ledger rows and exit codes."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from learn_spark.commands.main import app
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import add_row, ledger, release_in_force
from learn_spark.pipeline.locks import writing
from tests.report.planted import FIRST_DAY, plant, release_row
from tests.world import write_config

Command = Callable[..., Result]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """r1 and r2 are released, r3 was refused by its audit."""
    workspace = Workspace.open(str(tmp_path / "workspace"))
    for number in (1, 2):
        common = {"release_id": f"r{number}", "as_of": FIRST_DAY, "fingerprint": 0, "embedding": [1.0]}
        outputs = {
            f"{kind}_features": plant(
                workspace,
                f"{kind}_features",
                [{**common, f"{kind}_id": str(n)} for n in range(number)],
                mode="overwrite",
            )
            for kind in ("user", "item")
        }
        row = release_row(0, f"r{number}", "released", FIRST_DAY, outputs=outputs, metrics={"NDCG@10": 0.25})
        add_row(workspace, replace(row, note=f"what r{number} wrote"))
    rule = {"measure": "item_missing", "observed": 3.0, "least": 0, "most": 0, "passed": False, "meaning": "items gone"}
    add_row(workspace, release_row(0, "r3", "refused", FIRST_DAY, gate_results=json.dumps([rule])))
    return workspace


@pytest.fixture
def command(workspace: Workspace, tmp_path: Path) -> Command:
    """Runs learn-spark on that workspace."""
    config = write_config(tmp_path / "c.yaml", raw=tmp_path, workspace=workspace.root, model=tmp_path)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--config", str(config)])

    return run


def lines(result: Result) -> list[str]:
    return [" ".join(line.split()) for line in result.stdout.splitlines() if line.strip()]


def test_the_list_and_one_release(command: Command) -> None:
    printed = lines(command("releases"))
    assert [line.split()[:2] for line in printed[2:5]] == [["r3", "refused"], ["r2", "released"], ["r1", "released"]]
    assert "r2 released * 2024-01-01 00:00" in printed[3]
    assert printed[3].endswith("m 0.2500 2 2")
    assert printed[-1] == "* the release in force, which consumers read"
    printed = lines(command("show"))
    assert printed[0] == "Release r2"
    assert printed[2].endswith("what r2 wrote")
    assert "outputs item_features @ 1, user_features @ 1" in printed
    assert "item_missing 3 0 0 broken items gone" in lines(command("show", "r3"))
    listed = json.loads(command("releases", "--json").stdout)
    assert set(listed) == {"releases", "in_force", "notes"}
    states = {row["release"]: row["state"] for row in listed["releases"]}
    assert states == {"r1": "released", "r2": "released", "r3": "refused"}
    failed = command("show", "r9", "--json")
    assert json.loads(failed.stdout) == {"error": failed.stderr.splitlines()[-1].removeprefix("error: "), "notes": []}
    missing = command("show", "r9")
    assert (missing.exit_code, missing.stdout) == (1, "")
    # On a busy machine a line says before that the command is starting.
    assert missing.stderr.splitlines()[-1].startswith("error: there is no release 'r9'; the newest are r1, r2")


def test_withdrawing_adds_a_row_and_a_dry_run_none(command: Command, workspace: Workspace) -> None:
    before = ledger(workspace)
    assert lines(command("rollback", "--dry-run")) == [
        "would withdraw release r2 (model m)",
        "would be in force: release r1 (model m, as of 2024-01-01 00:00)",
    ]
    assert lines(command("withdraw", "r1", "--dry-run"))[0] == "would withdraw release r1 (model m)"
    with writing(workspace, ("releases",), "a run of publish"):
        busy = command("rollback")
        assert (busy.exit_code, "releases" in busy.stderr, "publish" in busy.stderr) == (1, True, True)
    assert ledger(workspace) == before
    done = command("rollback", "--reason", "wrong prices")
    in_force = "release r1 (model m, as of 2024-01-01 00:00)"
    assert lines(done)[:-1] == [
        "will withdraw release r2 (model m)",
        f"will be in force: {in_force}",
        "withdrawn: release r2 (model m)",
        f"released: {in_force}",
    ]
    *old, added = ledger(workspace)
    assert old == before
    assert (added.release_id, added.status, added.note) == ("r2", "withdrawn", "wrong prices")


def advised(text: str, command: Command) -> Result:
    """The result of the command that a message advises: from ``learn-spark`` to the end of the sentence."""
    found = re.search(r"learn-spark ([a-z_-]+(?: (?:--[a-z-]+|r\d))*)", text)
    assert found, text
    return command(*found[1].split())


def test_nothing_is_left_only_when_asked_for_and_every_advice_works(command: Command, workspace: Workspace) -> None:
    undo = lines(command("rollback"))[-1]
    assert pointer(workspace)["release_id"] == "r1"
    before = ledger(workspace)
    for refused in (command("rollback"), command("withdraw", "r1")):
        assert refused.exit_code == 1
        assert "--allow-none" in refused.stderr
        assert "would be in force: none" in command("rollback", "--dry-run").stdout
    assert ledger(workspace) == before
    assert lines(command("rollback", "--allow-none"))[-2] == "released: none"
    assert pointer(workspace) == {"release_id": None, "tables": {}}
    assert lines(command("releases"))[-1] == "no release is in force"
    # The message of a reader names the command that mends it, and the command works.
    nothing = command("show")
    assert nothing.exit_code == 1
    restored = advised(nothing.stderr, command)
    assert (restored.exit_code, lines(restored)[-2].split()[:3]) == (0, ["released:", "release", "r1"])
    # So does the advice of a named release that was withdrawn, and what a rollback printed to undo it.
    named = command("withdraw", "r2")
    assert "learn-spark restore r2" in named.stderr
    arguments = shlex.split(undo.removeprefix("undo: learn-spark "))
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert pointer(workspace)["release_id"] == "r2"
    last = lines(command("withdraw", "r2"))[-1]
    assert CliRunner().invoke(app, shlex.split(last.removeprefix("undo: learn-spark "))).exit_code == 0
    released = release_in_force(ledger(workspace))
    assert released is not None
    assert pointer(workspace) == {
        "release_id": "r2",
        "model_id": "m",
        "as_of": FIRST_DAY.isoformat(),
        "released_at": released.written_at.isoformat(),
        "sequence": released.sequence,
        "tables": {
            table: {"path": table, "version": released.version(table)} for table in ("item_features", "user_features")
        },
    }


def test_a_restored_release_takes_its_place_below_newer_ones(command: Command, workspace: Workspace) -> None:
    assert command("withdraw", "r1").exit_code == 0
    assert lines(command("restore", "r1"))[-2].startswith("released: release r2")
    # For a reader that knows the ledger alone: the released row with the highest sequence is that release.
    assert (
        max((row for row in ledger(workspace) if row.status == "released"), key=lambda r: r.sequence).release_id == "r2"
    )
    assert command("rollback", "--to", "r1").exit_code == 0
    assert lines(command("restore", "r2"))[-2].startswith("released: release r2")
    again = command("restore", "r2")
    assert again.exit_code == 1
    assert "not withdrawn" in again.stderr


def pointer(workspace: Workspace) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((workspace.root / "tables" / "released.json").read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("name", ["releases", "show", "status", "models", "retain", "restore", "rollback"])
def test_every_command_prints_one_json_value(command: Command, name: str) -> None:
    given = {"restore": ("restore", "r2"), "rollback": ("rollback", "--dry-run")}.get(name, (name,))
    if name == "restore":
        command("rollback")
    printed = command(*given, "--json")
    assert printed.exit_code == 0, printed.stderr
    content = json.loads(printed.stdout)
    if name == "rollback":
        assert (content["withdraw"], content["in_force"], content["dry_run"]) == (["r2"], "r1", True)
    if name == "releases":
        assert [(row["release"], row["users"]) for row in content["releases"]] == [("r3", None), ("r2", 2), ("r1", 1)]


def test_commands_in_a_wrong_folder_say_so_and_make_nothing(tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.yaml", raw=tmp_path, workspace=tmp_path / "not" / "here", model=tmp_path)
    (tmp_path / "empty").mkdir()
    for arguments in (
        ["status"],
        ["models"],
        ["releases"],
        ["show"],
        ["lineage", "items"],
        ["recommend", "--user", "u"],
        ["compare", "a", "b"],
        ["rollback"],
        ["restore", "r1"],
        ["withdraw", "r1"],
        ["retain"],
        ["erase", "--users", "gone.txt"],
        ["forget-embeddings"],
        ["check", "items"],
        ["report", "a-run"],
        ["backfill", "--from", "2024-01-01", "--to", "2024-01-02"],
    ):
        for more in ([], ["--set", f"workspace={tmp_path / 'empty'}"]):
            result = CliRunner().invoke(app, [*arguments, "--config", str(config), *more])
            assert result.exit_code == 2, (arguments, result.stderr)
            assert "there is no workspace in" in result.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["c.yaml", "empty"]


def test_reading_commands_make_no_file(command: Command, workspace: Workspace) -> None:
    before = {path: path.stat().st_mtime_ns for path in workspace.root.rglob("*")}
    for arguments in (["releases"], ["show"], ["status"], ["models"], ["lineage", "user_features"], ["show", "r9"]):
        command(*arguments)
    assert {path: path.stat().st_mtime_ns for path in workspace.root.rglob("*")} == before
