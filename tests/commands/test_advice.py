"""Commands that messages and pages name: each exists, and takes the options that are named with it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

import learn_spark
from learn_spark.commands.main import app

PACKAGE = Path(learn_spark.__file__).parent
PAGES = [PACKAGE.parent / "README.md", *(PACKAGE.parent / "docs").rglob("*.md")]
NAMED = re.compile(r"(`?)learn-spark ([a-z][a-z_-]+)((?: [^\s`;:,()]+(?=[\s`;,()]|$))*)")


def texts() -> Iterator[tuple[str, str]]:
    """(file, text) of every string of the package, its parts joined, and of every page."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
                yield file.name, "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield file.name, node.value
    for page in PAGES:
        yield page.name, page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def test_every_command_that_is_named_exists_with_its_options(commands: dict[str, Any]) -> None:
    named = 0
    for where, text in texts():
        for tick, command, rest in NAMED.findall(text):
            # Without a tick and an option it may be the package's name in a sentence: learn-spark reads ...
            if command not in commands and not tick and " --" not in rest:
                continue
            assert command in commands, f"{where}: learn-spark {command}{rest}"
            named += 1
            found = commands[command]
            if below := getattr(found, "commands", {}):  # a group, as in learn-spark online push
                name = f"{rest} ".split(" ")[1]
                assert name in below, f"{where}: learn-spark {command}{rest}"
                found = below[name]
            options = {option for parameter in found.params for option in parameter.opts} | {"--help"}
            for option in re.findall(r"(?<= )--[a-z0-9-]+", rest):
                assert option in options, f"{where}: learn-spark {command}{rest}"
    assert named > 100
