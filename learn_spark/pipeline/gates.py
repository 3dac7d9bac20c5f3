"""The quality gates of a run, printed to the console; Data Docs are written once at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from learn_spark.core.console import Reporter
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.quality.gate import GateReport
from learn_spark.core.quality.table_gate import TableGate
from learn_spark.core.settings import Settings
from learn_spark.core.settings.platform import QualitySettings
from learn_spark.core.stages.context import SparkHolder
from learn_spark.core.stages.registry import writers_of
from learn_spark.core.tables.runs import new_run_id
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.locks import writing

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class Gates:
    """The gates of one call of ``run_stages``: prints each evaluation and collects it for Data Docs."""

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
        """Raise GateError unless the version passes its gate; arguments as for ``TableGate.require``."""
        self._console.at(f"gate of {table}")
        evaluated = self._gate.require(table, version, run_id, given, versions=versions)
        if evaluated is None:
            return
        self._evaluated.append(evaluated)
        warnings = evaluated.broken("warn")
        self._console.say(f"gate {evaluated.title}: {len(evaluated.results)} rules, {len(warnings)} warnings")
        for result in warnings:
            self._console.say(f"warning: {result.sentence()}", kept=False)

    def write_docs(self) -> None:
        """Write the Data Docs of all evaluations since the last call; a failed gate has written its page already."""
        self._console.at("writing the pages of the gates")
        for evaluated in self._evaluated:
            evaluated.write_docs()
        self._evaluated.clear()


def require_gates(
    tables: Sequence[str], settings: Settings, workspace: Workspace, console: Reporter, *, verbose: bool = False
) -> None:
    """Evaluate the gates of the tables' newest versions that were not evaluated yet; GateError where one failed.

    Raises LearnSparkError for a table that is not there.
    """
    versions = {table: current_version(workspace.table(table)) for table in tables}
    if missing := [table for table, version in versions.items() if version is None]:
        raise LearnSparkError(
            f"{workspace.place} has no table {', '.join(missing)}; learn-spark {', '.join(writers_of(missing))} "
            "writes it"
        )
    newest = {table: version for table, version in versions.items() if version is not None}
    holder = SparkHolder(settings, verbose=verbose, at=console.at)
    gates = Gates(workspace, settings.quality, lambda: holder.get(workspace), console)
    try:
        with writing(workspace, (), "a run of gates"):
            for table, version in newest.items():
                gates.require(table, version, new_run_id(), newest)
    finally:
        holder.stop()
        gates.write_docs()
