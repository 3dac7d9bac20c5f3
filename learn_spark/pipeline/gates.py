"""The gates of a run: each table that a stage reads or writes, shown on the console, with Data Docs once a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from learn_spark.core.console import Reporter
from learn_spark.core.quality.gate import GateReport
from learn_spark.core.quality.table_gate import TableGate
from learn_spark.core.settings.platform import QualitySettings
from learn_spark.core.tables.workspace import Workspace

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class Gates:
    """The gates of one call of ``run_stages``: it shows each evaluation, and writes their Data Docs at its end."""

    def __init__(
        self, workspace: Workspace, settings: QualitySettings, spark: Callable[[], SparkSession], console: Reporter
    ) -> None:
        self._gate = TableGate(workspace, settings, spark)
        self._console = console
        self._evaluated: list[GateReport] = []

    def require(
        self,
        table: str,
        version: int,
        run_id: str,
        versions: Mapping[str, int],
        given: Mapping[str, float] | None = None,
    ) -> None:
        """GateError unless the version passed; arguments as of ``TableGate.require``."""
        evaluated = self._gate.require(table, version, run_id, given, versions=versions)
        if evaluated is None:
            return
        self._evaluated.append(evaluated)
        warnings = evaluated.broken("warn")
        self._console.say(f"gate {evaluated.title}: {len(evaluated.results)} rules, {len(warnings)} warnings")
        for result in warnings:
            self._console.say(f"warning: {result.sentence()}")

    def write_docs(self) -> None:
        """Write the pages of all evaluations since the last call; a failed gate wrote its own."""
        for evaluated in self._evaluated:
            evaluated.write_docs()
        self._evaluated.clear()
