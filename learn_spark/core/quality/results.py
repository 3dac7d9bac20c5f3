"""The quality_results table: observed values of gates, and whether a table version may be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import pyarrow.dataset as ds

from learn_spark.core.quality.gate import RuleResult
from learn_spark.core.tables.contracts import TableRule, contract
from learn_spark.core.tables.log import append_rows, read_rows
from learn_spark.core.tables.workspace import Workspace


@dataclass(frozen=True)
class StoredResult:
    """One row of ``quality_results``: a rule's result on a table version (schemas/quality_results.yaml)."""

    run_id: str
    judged_table: str
    judged_version: int
    rule: str
    fingerprint: str
    severity: str
    passed: bool
    observed: float | None
    least: float | None
    most: float | None
    compared_version: int | None
    meaning: str
    judged_at: datetime


def stored_results(workspace: Workspace) -> list[StoredResult]:
    """All rows of ``quality_results`` in the order of evaluation; none where the table does not exist."""
    return _read(workspace.table("quality_results"))


def _read(path: str, where: ds.Expression | None = None) -> list[StoredResult]:
    rows = [StoredResult(**row) for row in read_rows(path, where=where)]
    return sorted(rows, key=lambda row: (row.judged_at, row.run_id))


class Results:
    """The gate results of a workspace, those of a table read once."""

    def __init__(self, workspace: Workspace) -> None:
        self._path = workspace.table("quality_results")
        # Table -> version -> run -> rows, each in the order of evaluation.
        self._by_table: dict[str, dict[int, dict[str, list[StoredResult]]]] = {}
        self._newest = datetime.min.replace(tzinfo=UTC)

    def _of(self, table: str) -> dict[int, dict[str, list[StoredResult]]]:
        if table not in self._by_table:
            self._by_table[table] = {}
            self._add(_read(self._path, ds.field("judged_table") == table))
        return self._by_table[table]

    def _add(self, rows: Iterable[StoredResult]) -> None:
        for row in rows:
            self._newest = max(self._newest, row.judged_at)
            versions = self._by_table.setdefault(row.judged_table, {})
            versions.setdefault(row.judged_version, {}).setdefault(row.run_id, []).append(row)

    def _runs(self, table: str, version: int) -> list[list[StoredResult]]:
        return list(self._of(table).get(version, {}).values())

    def of_version(self, table: str, version: int, rules: Iterable[TableRule]) -> list[StoredResult] | None:
        """The newest evaluation of a table version by exactly these rules; None if there is none."""
        fingerprints = {rule.fingerprint() for rule in rules}
        for rows in reversed(self._runs(table, version)):
            newest = {row.fingerprint: row for row in rows}
            if fingerprints == set(newest):
                return list(newest.values())
        return None

    def passed_before(self, table: str, version: int, since: int = 0) -> tuple[int, dict[str, float | None]] | None:
        """(version, rule -> observed) of the newest older version that passed its gate; None if there is none.

        Of several evaluations of a version, the newest is used. Versions before ``since`` do not count: they have rows
        of users that were erased.
        """
        for older in sorted(self._of(table), reverse=True):
            rows = self._runs(table, older)[-1]
            if since <= older < version and all(row.passed or row.severity == "warn" for row in rows):
                return older, {row.rule: row.observed for row in rows}
        return None

    def last_observed(self, table: str, version: int) -> dict[str, float]:
        """Rule -> the last observed value of this version that is not null."""
        rows = [row for run in self._runs(table, version) for row in run]
        return {row.rule: row.observed for row in rows if row.observed is not None}

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
        """Append one row per rule."""
        self._of(table)
        # Later than every earlier evaluation of the table, under any clock: their order decides which is the newest.
        now = max(datetime.now(UTC), self._newest + timedelta(microseconds=1))
        rows = [
            StoredResult(
                run_id=run_id,
                judged_table=table,
                judged_version=version,
                rule=result.measure,
                fingerprint=fingerprints[result.measure],
                severity=result.severity,
                passed=result.passed,
                observed=result.observed,
                least=result.least,
                most=result.most,
                compared_version=compared if result.measure in drifting else None,
                meaning=result.meaning,
                judged_at=now,
            )
            for result in results
        ]
        append_rows(self._path, contract("quality_results"), [asdict(row) for row in rows])
        self._add(rows)
