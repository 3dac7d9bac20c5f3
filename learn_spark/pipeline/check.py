"""Evaluation of one table's quality gate, at any version."""

from __future__ import annotations

from learn_spark.core.console import Reporter
from learn_spark.core.errors import SettingsError
from learn_spark.core.quality.gate import GateReport, RuleResult
from learn_spark.core.quality.table_gate import TableGate, check_rule_names, rules_of
from learn_spark.core.settings import Settings
from learn_spark.core.stages.context import SparkHolder
from learn_spark.core.tables.runs import new_run_id
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.locks import writing


def check_table(
    table: str,
    settings: Settings,
    *,
    console: Reporter,
    version: int | None = None,
    docs: bool = False,
    verbose: bool = False,
    wait: bool = False,
) -> GateReport:
    """Evaluate the rules of a table, store and print the results; write Data Docs with ``docs`` or if a rule fails.

    A table that an old version refers to is read at the version of that time. Raises GateError if a rule of severity
    fail is broken, SettingsError for a table that does not exist or has no rules, SnapshotError for a version that does
    not exist.
    """
    check_rule_names(settings.quality)
    if not rules_of(table, settings.quality):
        raise SettingsError(f"the contract of {table} has no rules to check")
    workspace = Workspace.open(settings.place, settings.scratch)
    holder = SparkHolder(settings, verbose=verbose, at=console.at)
    gate = TableGate(workspace, settings.quality, lambda: holder.get(workspace))
    chosen = Snapshot.open(workspace.table(table), version if version is not None else gate.newest(table)).version
    with writing(workspace, (), f"a check of {table}", wait=wait, say=console.say):
        try:
            evaluated = gate.evaluate(table, chosen, new_run_id())
        finally:
            holder.stop()
    assert evaluated is not None
    rows = [[r.measure, r.observed, r.least, r.most, _verdict(r), r.meaning] for r in evaluated.results]
    columns = ["rule", "observed", "least", "most", "verdict", "meaning"]
    console.table(f"Gate of {evaluated.title}", columns, rows, name="rules")
    if docs or not evaluated.passed:
        console.line(f"Data Docs  {evaluated.write_docs()}")
    evaluated.require()
    return evaluated


def _verdict(result: RuleResult) -> str:
    if result.passed:
        return "passed"
    return "broken" if result.severity == "fail" else "warning"
