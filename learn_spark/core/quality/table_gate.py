"""The gate of a table: its rules, evaluated on one version. The stored results decide whether it may be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from learn_spark.core.errors import SettingsError
from learn_spark.core.quality.data_docs import page_path
from learn_spark.core.quality.gate import GateReport, Rule, RuleResult, evaluate_rules
from learn_spark.core.quality.profile import profile
from learn_spark.core.quality.results import Results, StoredResult
from learn_spark.core.settings.platform import QualitySettings
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.contracts import ContractError, TableRule, contract
from learn_spark.core.tables.erased import Erasures
from learn_spark.core.tables.runs import versions_beside
from learn_spark.core.tables.small import small_plans
from learn_spark.core.tables.snapshot import Snapshot, commit_time, current_version, version_at
from learn_spark.core.tables.workspace import Workspace

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def rules_of(table: str, settings: QualitySettings) -> tuple[TableRule, ...]:
    """The rules of the table's contract with the changes of ``quality.rules``.

    Raises SettingsError if ``quality.rules`` names a table or a rule that does not exist.
    """
    changes: dict[str, dict[str, object]] = {}
    for name, change in settings.rules.items():
        changed_table, _, rule = name.partition(".")
        try:
            contract(changed_table).rule(rule)
        except ContractError as error:
            raise SettingsError(f"quality.rules.{name}: {error}") from None
        if changed_table == table:
            changes[rule] = change.model_dump(exclude_unset=True)
    try:
        rules = contract(table).rules
    except ContractError as error:
        raise SettingsError(str(error)) from None
    return tuple(rule.model_copy(update=changes.get(rule.name, {})) for rule in rules)


def check_rule_names(settings: QualitySettings) -> None:
    """Raise SettingsError if ``quality.rules`` names a table or a rule that does not exist."""
    for name in settings.rules:
        rules_of(name.partition(".")[0], settings)


class TableGate:
    """Evaluates rules on table versions of one workspace. ``spark`` returns a session, and is called only to
    measure."""

    def __init__(self, workspace: Workspace, settings: QualitySettings, spark: Callable[[], SparkSession]) -> None:
        self._workspace, self._settings, self._spark = workspace, settings, spark
        self._loaded: Results | None = None
        self._erasures = Erasures(workspace)

    @property
    def _results(self) -> Results:
        if self._loaded is None:
            self._loaded = Results(self._workspace)
        return self._loaded

    def evaluate(
        self,
        table: str,
        version: int,
        run_id: str,
        given: Mapping[str, float] | None = None,
        *,
        versions: Mapping[str, int] | None = None,
    ) -> GateReport | None:
        """Measure a version, evaluate its rules and store the results; None if the table has no rules.

        ``given``: measures of the run that wrote the version; by default those of its last evaluation. A referenced
        table is read at its version in ``versions`` (the versions that a run has pinned), else at the one that the
        recorded runs give (``versions_beside``), else at the one that was current at the time of the commit. Does not
        raise for a broken rule (``GateReport.require`` does), and writes no page.
        """
        from learn_spark.core.tables import delta

        rules = rules_of(table, self._settings)
        if not rules:
            return None
        results, spark = self._results, self._spark()

        path = self._workspace.table(table)
        pinned = {rule.references.table: 0 for rule in rules if rule.references is not None}
        for name in pinned:
            given_version = (versions or versions_beside(self._workspace, table, version)).get(name)
            if given_version is None:
                given_version = version_at(self._workspace.table(name), commit_time(path, version))
            pinned[name] = given_version

        def read_referenced(name: str) -> DataFrame:
            return delta.read(spark, self._workspace.table(name), pinned[name])

        rows = Snapshot.open(path, version).rows
        referenced = [Snapshot.open(self._workspace.table(name), at).rows for name, at in pinned.items()]
        with small_plans(spark, max(rows, *referenced, 0)):
            measured = profile(delta.read(spark, path, version), rules, read_referenced, rows=rows)
        earlier = results.last_observed(table, version)
        drifting = frozenset(rule.name for rule in rules if rule.drift_of is not None)
        since = self._erasures.oldest_version(table) if drifting else 0
        before = results.passed_before(table, version, since)
        observed: dict[str, float | None] = dict(measured)
        for rule in rules:
            if rule.given is not None:
                number = (given or {}).get(rule.given, earlier.get(rule.name))
                if number is not None:
                    observed[rule.name] = number
            if rule.drift_of is not None:
                then = before[1].get(rule.drift_of) if before else None
                observed[rule.name] = _change(rule, measured.get(rule.drift_of), then)
        # A drift without an earlier version, and a measure that no run gave, cannot be evaluated.
        unmeasured = {r.name for r in rules if (r.drift_of or r.given) and observed.get(r.name) is None}
        report = evaluate_rules(
            table,
            observed,
            [_bounds(rule) for rule in rules if rule.name not in unmeasured],
            self._folder,
            title=gate_title(table, version),
        )
        left = [rule for rule in rules if rule.name in unmeasured]
        passed = [RuleResult(r.name, r.least, r.most, r.meaning, None, True, r.severity) for r in left]
        report = replace(report, results=(*report.results, *passed))
        results.store(
            run_id,
            table,
            version,
            report.results,
            {rule.name: rule.fingerprint() for rule in rules},
            before[0] if before else None,
            drifting,
        )
        return report

    def require(
        self,
        table: str,
        version: int,
        run_id: str,
        given: Mapping[str, float] | None = None,
        *,
        versions: Mapping[str, int] | None = None,
    ) -> GateReport | None:
        """Raise GateError unless this version passes its gate.

        The version is evaluated if there is no stored result of the current rules, or if the stored one has other
        values than ``given`` (a run whose rows were all refused writes no new version). Returns the report of a new
        evaluation; None if a stored result was used or the table has no rules. ``versions`` as in ``evaluate``.
        """
        rules = rules_of(table, self._settings)
        if not rules:
            return None
        stored = self._results.of_version(table, version, rules)
        if stored is None or _given_differs(stored, rules, given or {}):
            report = self.evaluate(table, version, run_id, given, versions=versions)
            assert report is not None
            report.require()
            return report
        results = tuple(
            RuleResult(row.rule, row.least, row.most, row.meaning, row.observed, row.passed, row.severity)
            for row in stored
        )
        title = gate_title(table, version)
        GateReport(table, title, results, page_path(self._folder, table, title)).require()
        return None

    @property
    def _folder(self) -> StoragePath:
        return self._workspace.place / "reports" / "quality"

    def newest(self, table: str) -> int:
        """The newest version of a table. Raises SettingsError if the table does not exist."""
        version = current_version(self._workspace.table(table))
        if version is None:
            raise SettingsError(
                f"there is no table {table} in {self._workspace.place} yet; run the stage that writes it"
            )
        return version


def _given_differs(stored: Iterable[StoredResult], rules: Iterable[TableRule], given: Mapping[str, float]) -> bool:
    observed = {row.rule: row.observed for row in stored}
    return any(r.given is not None and r.given in given and given[r.given] != observed[r.name] for r in rules)


def gate_title(table: str, version: int) -> str:
    """The title of an evaluation of a table version, and of its page."""
    return f"{table} @ {version}"


def _bounds(rule: TableRule) -> Rule:
    return Rule(rule.name, rule.least, rule.most, rule.meaning, rule.severity)


def _change(rule: TableRule, now: float | None, then: float | None) -> float | None:
    if now is None or then is None:
        return None
    if rule.change == "difference":
        return now - then
    if rule.change == "share_new":
        return (now - then) / now if now else 0.0
    return now / then if then else None
