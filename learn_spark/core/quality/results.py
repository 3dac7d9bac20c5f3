"""The quality_results table: what each gate saw, and whether a table version may be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from learn_spark.core.quality.gate import RuleResult
from learn_spark.core.tables.contracts import TableRule, contract
from learn_spark.core.tables.log import append_rows, read_rows
from learn_spark.core.tables.workspace import Workspace


class Results:
    """All results of a workspace, read once."""

    def __init__(self, workspace: Workspace) -> None:
        self._path = workspace.table("quality_results")
        rows = read_rows(self._path)
        self._rows = sorted(rows, key=lambda row: (row["judged_at"], row["run_id"]))

    def of_version(self, table: str, version: int, rules: Iterable[TableRule]) -> list[dict[str, Any]] | None:
        """The newest judgement of a table version by exactly these rules; None where there is none."""
        wanted = {rule.fingerprint() for rule in rules}
        runs: dict[str, dict[str, dict[str, Any]]] = {}
        for row in self._rows:
            if row["judged_table"] == table and row["judged_version"] == version:
                runs.setdefault(row["run_id"], {})[row["fingerprint"]] = row
        for found in reversed(list(runs.values())):
            if wanted == set(found):
                return list(found.values())
        return None

    def passed_before(self, table: str, version: int) -> tuple[int, dict[str, float | None]] | None:
        """(version, rule -> observed) of the newest older version whose gate passed; None where there is none.

        Of several judgements of a version the newest counts.
        """
        judged: dict[int, dict[str, list[dict[str, Any]]]] = {}
        for row in self._rows:
            if row["judged_table"] == table and row["judged_version"] < version:
                judged.setdefault(row["judged_version"], {}).setdefault(row["run_id"], []).append(row)
        for older in sorted(judged, reverse=True):
            rows = list(judged[older].values())[-1]
            if all(row["passed"] or row["severity"] == "warn" for row in rows):
                return older, {row["rule"]: row["observed"] for row in rows}
        return None

    def last_given(self, table: str, version: int) -> dict[str, float]:
        """Rule -> observed of the newest judgement of this very version."""
        rows = [r for r in self._rows if r["judged_table"] == table and r["judged_version"] == version]
        return {row["rule"]: row["observed"] for row in rows if row["observed"] is not None}

    def store(
        self,
        run_id: str,
        table: str,
        version: int,
        results: Iterable[RuleResult],
        fingerprints: Mapping[str, str],
        compared: int | None,
        drifting: frozenset[str],
    ) -> None:
        """Append one row a rule."""
        now = datetime.now(UTC)
        rows = [
            {
                "run_id": run_id,
                "judged_table": table,
                "judged_version": version,
                "rule": result.measure,
                "fingerprint": fingerprints[result.measure],
                "severity": result.severity,
                "passed": result.passed,
                "observed": result.observed,
                "least": result.least,
                "most": result.most,
                "compared_version": compared if result.measure in drifting else None,
                "meaning": result.meaning,
                "judged_at": now,
            }
            for result in results
        ]
        append_rows(self._path, contract("quality_results"), rows)
        self._rows += rows
