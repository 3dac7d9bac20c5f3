"""What the gates said on a road: of every table version that it wrote, and of its release."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.workspace import Workspace
from learn_spark.report.road import Road


@dataclass(frozen=True)
class Judgement:
    """One rule and what was observed; ``verdict`` is passed, warning or failed."""

    rule: str
    observed: float | None
    least: float | None
    most: float | None
    verdict: str
    meaning: str


@dataclass(frozen=True)
class Gate:
    """All rules of one gate, in words and one by one."""

    name: str
    verdict: str
    judgements: tuple[Judgement, ...]

    @property
    def passed(self) -> int:
        """How many rules passed."""
        return sum(judged.verdict == "passed" for judged in self.judgements)


@dataclass(frozen=True)
class Release:
    """The release that a road's publishing run staged. ``status`` is its newest: it may be withdrawn by now."""

    release_id: str
    status: str
    as_of: datetime
    gate: Gate | None


def table_gates(workspace: Workspace, road: Road) -> list[Gate]:
    """The newest judgement of every table version that the road's runs wrote, in the order of the road."""
    found: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for row in sorted(read_rows(workspace.table("quality_results")), key=lambda row: row["judged_at"]):
        found.setdefault((row["judged_table"], row["judged_version"]), {})[row["rule"]] = row
    gates = []
    for run in road.runs:
        for table, version in run.outputs.items():
            rules = found.get((table, int(version)) if version.isdecimal() else ("", 0))
            if rules:
                gates.append(_gate(f"{table} @ {version}", rules))
    return gates


def release_of(workspace: Workspace, road: Road) -> Release | None:
    """The release of the road's publishing run; None where it published nothing."""
    published = road.of("publish")
    rows = sorted(read_rows(workspace.table("releases")), key=lambda row: row["sequence"])
    mine = [row for row in rows if published and row["run_id"] == published.run_id]
    if not mine:
        return None
    newest = [row for row in rows if row["release_id"] == mine[-1]["release_id"] and row["status"] != "staged"]
    results = json.loads(mine[-1]["gate_results"] or "[]")
    gate = _gate("release", {rule["measure"]: rule for rule in results}) if results else None
    return Release(mine[-1]["release_id"], (newest or mine)[-1]["status"], mine[-1]["as_of"], gate)


def _gate(name: str, rules: Mapping[str, Mapping[str, Any]]) -> Gate:
    judgements = tuple(
        Judgement(rule, row["observed"], row["least"], row["most"], _verdict(row), row["meaning"])
        for rule, row in rules.items()
    )
    verdicts = {judged.verdict for judged in judgements}
    return Gate(name, next(v for v in ("failed", "warning", "passed") if v in verdicts), judgements)


def _verdict(row: Mapping[str, Any]) -> str:
    if row["passed"]:
        return "passed"
    return "failed" if row.get("severity", "fail") == "fail" else "warning"
