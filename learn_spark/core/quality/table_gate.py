"""A table's gate: the rules of its contract over one version, judged, stored, and asked again before anybody reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from learn_spark.core.errors import SettingsError
from learn_spark.core.quality.gate import GateReport, Rule, RuleResult, docs_page, run_gate
from learn_spark.core.quality.profile import profile
from learn_spark.core.quality.results import Results
from learn_spark.core.settings.platform import QualitySettings
from learn_spark.core.tables.contracts import ContractError, TableRule, contract
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def rules_of(table: str, settings: QualitySettings) -> tuple[TableRule, ...]:
    """The rules of the table's contract, changed as ``quality.rules`` says.

    Raises SettingsError where that names a table or rule that there is not.
    """
    changes: dict[str, dict[str, object]] = {}
    for name, change in settings.rules.items():
        judged, _, rule = name.partition(".")
        try:
            contract(judged).rule(rule)
        except ContractError as error:
            raise SettingsError(f"quality.rules.{name}: {error}") from None
        if judged == table:
            changes[rule] = change.model_dump(exclude_unset=True)
    try:
        own = contract(table).rules
    except ContractError as error:
        raise SettingsError(str(error)) from None
    return tuple(rule.model_copy(update=changes.get(rule.name, {})) for rule in own)


def check_rule_names(settings: QualitySettings) -> None:
    """SettingsError where ``quality.rules`` names a table or rule that there is not."""
    for name in settings.rules:
        rules_of(name.partition(".")[0], settings)


class TableGate:
    """Judges table versions of one workspace. ``spark`` is asked for a session only if something must be measured."""

    def __init__(self, workspace: Workspace, settings: QualitySettings, spark: Callable[[], SparkSession]) -> None:
        self._workspace, self._settings, self._spark = workspace, settings, spark
        self._known: Results | None = None

    @property
    def _results(self) -> Results:
        if self._known is None:
            self._known = Results(self._workspace)
        return self._known

    def judge(
        self, table: str, version: int, run_id: str, given: Mapping[str, float] | None = None
    ) -> GateReport | None:
        """Measure a version, judge it, store the results, write the Data Docs. None where the table has no rules.

        ``given`` are numbers of the run that wrote the version; a later judgement takes them from the earlier one.
        Nothing is raised for a broken rule: ``GateReport.require`` does that.
        """
        from learn_spark.core.tables import delta

        rules = rules_of(table, self._settings)
        if not rules:
            return None
        results, spark = self._results, self._spark()

        measured = profile(
            delta.read(spark, self._workspace.table(table), version),
            rules,
            lambda name: delta.read(spark, self._workspace.table(name)),
        )
        earlier = results.last_given(table, version)
        before = results.passed_before(table, version)
        observed: dict[str, float | None] = dict(measured)
        for rule in rules:
            if rule.given is not None and (given is not None or rule.name in earlier):
                found = (given or {}).get(rule.given, earlier.get(rule.name))
                if found is not None:
                    observed[rule.name] = found
            if rule.drift_of is not None:
                then = before[1].get(rule.drift_of) if before else None
                observed[rule.name] = _change(rule, measured.get(rule.drift_of), then)
        # A drift without an earlier version, and a number that nobody gave, are nothing to judge by.
        silent = {r.name for r in rules if (r.drift_of or r.given) and observed.get(r.name) is None}
        report = run_gate(
            table,
            observed,
            [_judged(rule) for rule in rules if rule.name not in silent],
            self._workspace.folder("reports", "quality"),
            title=f"{table} @ {version}",
        )
        unjudged = [
            RuleResult(r.name, r.least, r.most, r.meaning, None, True, r.severity) for r in rules if r.name in silent
        ]
        report = GateReport(report.gate, (*report.results, *unjudged), report.docs)
        results.store(
            run_id,
            table,
            version,
            report.results,
            {rule.name: rule.fingerprint() for rule in rules},
            before[0] if before else None,
            frozenset(rule.name for rule in rules if rule.drift_of is not None),
        )
        return report

    def require(
        self, table: str, version: int, run_id: str, given: Mapping[str, float] | None = None
    ) -> GateReport | None:
        """GateError unless this version passed its gate; one that the rules have not judged yet is judged now.

        So is one that was judged by other numbers than ``given``: a run whose rows were all refused writes no version.
        The report if it was judged now; None if it is an older judgement, or the table has no rules.
        """
        rules = rules_of(table, self._settings)
        if not rules:
            return None
        known = self._results.of_version(table, version, rules)
        if known is None or _given_otherwise(known, rules, given or {}):
            report = self.judge(table, version, run_id, given)
            assert report is not None
            report.require()
            return report
        results = tuple(
            RuleResult(
                row["rule"], row["least"], row["most"], row["meaning"], row["observed"], row["passed"], row["severity"]
            )
            for row in known
        )
        title, folder = f"{table} @ {version}", self._workspace.folder("reports", "quality")
        GateReport(title, results, docs_page(folder, table, title)).require()
        return None

    def newest(self, table: str) -> int:
        """The newest version of a table; SettingsError where there is none."""
        version = current_version(self._workspace.table(table))
        if version is None:
            raise SettingsError(f"there is no table {table} in {self._workspace.root} yet")
        return version


def _given_otherwise(
    known: Iterable[Mapping[str, Any]], rules: Iterable[TableRule], given: Mapping[str, float]
) -> bool:
    observed = {row["rule"]: row["observed"] for row in known}
    return any(r.given is not None and r.given in given and given[r.given] != observed[r.name] for r in rules)


def _judged(rule: TableRule) -> Rule:
    return Rule(rule.name, rule.least, rule.most, rule.meaning, rule.severity)


def _change(rule: TableRule, now: float | None, then: float | None) -> float | None:
    if now is None or then is None:
        return None
    if rule.change == "difference":
        return now - then
    if rule.change == "share_new":
        return (now - then) / now if now else 0.0
    return now / then if then else None
