"""Options that all commands share."""

from __future__ import annotations

from typing import Any

import typer.main

from learn_spark.commands.main import app
from learn_spark.core.stages.registry import all_stages


def options() -> dict[str, set[str]]:
    """Command -> its options; a command of a group by both names."""
    group: Any = typer.main.get_command(app)
    commands: dict[str, Any] = {}
    for name, command in group.commands.items():
        below = getattr(command, "commands", None)
        commands |= {name: command} if below is None else {f"{name} {one}": each for one, each in below.items()}
    return {name: {option for one in command.params for option in one.opts} for name, command in commands.items()}


def test_every_command_that_prints_something_prints_json() -> None:
    assert [name for name, given in options().items() if "--json" not in given] == ["setup", "ui"]


def test_every_command_that_takes_locks_can_wait_for_them() -> None:
    locks = {stage.name for stage in all_stages()} | {"run", "check", "withdraw", "rollback", "restore"}
    locks |= {"backfill", "retain", "erase", "forget-embeddings"}
    assert {name for name, given in options().items() if "--wait" in given} == locks
