"""learn-spark releases, show, withdraw, rollback: output, added ledger rows and exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from learn_spark.commands.main import app
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import add_row, ledger
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
    missing = command("show", "r9")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert missing.stderr.startswith("error: there is no release 'r9'; the newest are r1, r2")


def test_withdrawing_adds_a_row_and_a_dry_run_none(command: Command, workspace: Workspace) -> None:
    before = ledger(workspace)
    assert lines(command("rollback", "--dry-run")) == ["would withdraw release r2"]
    assert lines(command("withdraw", "r1", "--dry-run")) == ["would withdraw release r1"]
    with writing(workspace, ("releases",), "a run of publish"):
        busy = command("rollback")
        assert (busy.exit_code, "releases" in busy.stderr, "publish" in busy.stderr) == (1, True, True)
    assert ledger(workspace) == before
    done = command("rollback", "--reason", "wrong prices")
    assert lines(done) == [
        "withdrawn: release r2 (model m)",
        "released: release r1 (model m, as of 2024-01-01 00:00)",
    ]
    *old, added = ledger(workspace)
    assert old == before
    assert (added.release_id, added.status, added.note) == ("r2", "withdrawn", "wrong prices")
    assert lines(command("withdraw", "r1"))[-1] == "released: none"
    refused = command("rollback")
    assert refused.exit_code == 1
    assert "no release is published" in refused.stderr
    assert lines(command("releases"))[-1] == "no release is in force"
