"""Gate results of the runs on a page: of every table version that they wrote, and of their release."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from learn_spark.core.quality import gate
from learn_spark.core.quality.results import StoredResult, stored_results
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import LedgerRow
from learn_spark.report.road import Road


@dataclass(frozen=True)
class RuleResult:
    """One rule, the observed value and its bounds; ``verdict`` is passed, warning or failed."""

    rule: str
    observed: float | None
    least: float | None
    most: float | None
    verdict: str
    meaning: str


@dataclass(frozen=True)
class Gate:
    """A gate: the worst verdict of its rules, and the result of each rule."""

    name: str
    verdict: str
    rules: tuple[RuleResult, ...]

    @property
    def passed(self) -> int:
        """Number of rules that passed."""
        return sum(rule.verdict == "passed" for rule in self.rules)


@dataclass(frozen=True)
class Release:
    """The release that the publish run staged. ``status`` is its newest status, such as withdrawn."""

    release_id: str
    status: str
    as_of: datetime
    gate: Gate | None


def table_gates(workspace: Workspace, road: Road) -> list[Gate]:
    """The newest gate result of every table version that the runs wrote, in the order of the pipeline."""
    results: dict[tuple[str, int], dict[str, StoredResult]] = {}
    for row in stored_results(workspace):
        results.setdefault((row.judged_table, row.judged_version), {})[row.rule] = row
    gates = []
    for run in road.runs:
        for table, version in run.outputs.items():
            rules = results.get((table, int(version)) if version.isdecimal() else ("", 0))
            if rules:
                gates.append(_gate(f"{table} @ {version}", rules))
    return gates


def release_of(rows: Sequence[LedgerRow], run_id: str | None) -> Release | None:
    """The release that a publish run staged, by the ledger ``rows``; None if there is no such run or release."""
    staged = [row for row in rows if row.run_id == run_id]
    if not staged:
        return None
    newest = [row for row in rows if row.release_id == staged[-1].release_id and row.status != "staged"]
    results = json.loads(staged[-1].gate_results or "[]")
    audit = _gate("release", {rule["measure"]: gate.RuleResult(**rule) for rule in results}) if results else None
    return Release(staged[-1].release_id, (newest or staged)[-1].status, staged[-1].as_of, audit)


def _gate(name: str, rules: Mapping[str, StoredResult | gate.RuleResult]) -> Gate:
    results = tuple(
        RuleResult(rule, row.observed, row.least, row.most, _verdict(row), row.meaning) for rule, row in rules.items()
    )
    verdicts = {result.verdict for result in results}
    return Gate(name, next(v for v in ("failed", "warning", "passed") if v in verdicts), results)


def _verdict(row: StoredResult | gate.RuleResult) -> str:
    if row.passed:
        return "passed"
    return "failed" if row.severity == "fail" else "warning"
