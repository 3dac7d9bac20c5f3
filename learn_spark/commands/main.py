"""The command ``learn-spark``, and its entry point for spark-submit.

Heavy libraries are imported where they are used, so that ``--help`` is fast.
"""

# ruff: noqa: I001  (the order of the imports is the order of --help)
from __future__ import annotations

from learn_spark.commands import (
    own_data,
    stages,
    quarantine,
    releases,
    online,
    operating,
    ui,
    research,
    experiments,
    version,
)
from learn_spark.commands.app import app

# Importing a group registers its commands.
__all__ = [
    "app",
    "experiments",
    "main",
    "online",
    "operating",
    "own_data",
    "quarantine",
    "releases",
    "research",
    "run_job",
    "stages",
    "ui",
    "version",
]


def run_job(name: str, arguments: list[str]) -> int:
    """Run the command ``name`` with the arguments of jobs/<name>.py; returns the exit code."""
    try:
        app([name, *arguments], standalone_mode=True)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def main() -> None:
    """The entry point of the installed command."""
    app()
