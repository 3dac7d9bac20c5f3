"""Quality gates: rules that bound the measures of a profile, evaluated by Great Expectations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learn_spark.core.errors import BrokenRule, GateError
from learn_spark.core.quality.data_docs import page_path, plain_name, write_page
from learn_spark.core.quality.expectations import validate
from learn_spark.core.storage.path import StoragePath, storage_path

if TYPE_CHECKING:
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult


@dataclass(frozen=True)
class Rule:
    """The profile's ``measure`` must be in [least, most] (None: no bound; without bounds it is only reported)."""

    measure: str
    least: float | None
    most: float | None
    meaning: str
    severity: str = "fail"

    @property
    def bounded(self) -> bool:
        """Whether the rule has a bound."""
        return self.least is not None or self.most is not None


@dataclass(frozen=True)
class RuleResult:
    """A rule, the observed value, and whether it is within the bounds."""

    measure: str
    least: float | None
    most: float | None
    meaning: str
    observed: float | None
    passed: bool
    severity: str = "fail"

    @property
    def rule(self) -> Rule:
        """The rule without its result."""
        return Rule(self.measure, self.least, self.most, self.meaning, self.severity)

    def sentence(self) -> str:
        """For example ``rows = 0, expected >= 1 (a catalogue has items)``."""
        return str(self._as_broken())

    def _as_broken(self) -> BrokenRule:
        return BrokenRule(self.measure, self.observed, self.least, self.most, self.meaning)


@dataclass(frozen=True)
class GateReport:
    """The results of one gate. ``title``: the gate and its subject; ``docs``: path of its page, which may not exist
    yet."""

    gate: str
    title: str
    results: tuple[RuleResult, ...]
    docs: StoragePath
    validation: ExpectationSuiteValidationResult | None = field(default=None, repr=False, compare=False)

    @property
    def passed(self) -> bool:
        """Whether every rule of severity ``fail`` passed."""
        return not self.broken("fail")

    def broken(self, severity: str) -> list[RuleResult]:
        """The broken rules of one severity."""
        return [result for result in self.results if not result.passed and result.severity == severity]

    def as_dicts(self) -> list[dict[str, Any]]:
        """The results as plain values."""
        return [asdict(result) for result in self.results]

    def write_docs(self) -> StoragePath:
        """Write the Data Docs page; its path. Results of an earlier process are validated again."""
        validation = self.validation
        if validation is None:
            rules = [result.rule for result in self.results if result.rule.bounded and not _unmeasured(result)]
            profile = {result.measure: result.observed for result in self.results}
            validation = validate(plain_name(self.gate), plain_name(self.title), rules, profile)
        write_page(self.docs, validation)
        return self.docs

    def require(self) -> None:
        """Raise GateError if a rule of severity ``fail`` is broken, with all such rules and the path of the page.

        The page is written first.
        """
        broken = [result._as_broken() for result in self.broken("fail")]
        if not broken:
            return
        if self.validation is not None or not self.docs.is_file():
            self.write_docs()
        rules = "; ".join(str(rule) for rule in broken)
        raise GateError(f"Quality gate '{self.title}' failed: {rules}. Data Docs: {self.docs}", self.title, broken)


def evaluate_rules(
    gate: str,
    profile: Mapping[str, float | None],
    rules: Sequence[Rule],
    folder: StoragePath | Path,
    *,
    title: str | None = None,
) -> GateReport:
    """Evaluate ``rules`` on ``profile`` (measure -> value) by Great Expectations, without writing files.

    A measure that is null or NaN fails its rule, unless the rule has no bound. ``folder``: folder of the page that
    ``GateReport.write_docs`` writes. ``title`` (default: the gate): name of the gate in the page and in errors. Raises
    ValueError if the profile lacks a measure.
    """
    missing = [rule.measure for rule in rules if rule.measure not in profile]
    if missing:
        raise ValueError(f"gate {gate}: the profile has no {', '.join(missing)}")
    title = title or gate
    bounded = [rule for rule in rules if rule.bounded]
    validation = validate(plain_name(gate), plain_name(title), bounded, profile)
    # One expectation per bounded rule and column; the order of the results differs from that of the suite.
    success = {rule.measure: True for rule in rules}
    for result in validation.results:
        assert result.expectation_config is not None
        success[result.expectation_config.kwargs["column"]] &= bool(result.success)
    results = tuple(
        RuleResult(
            rule.measure,
            rule.least,
            rule.most,
            rule.meaning,
            _plain(profile[rule.measure]),
            success[rule.measure],
            rule.severity,
        )
        for rule in rules
    )
    return GateReport(gate, title, results, page_path(storage_path(folder), gate, title), validation)


def _plain(value: float | None) -> float | None:
    return None if value is None else float(value)


def _unmeasured(result: RuleResult) -> bool:
    """Whether there was nothing to measure, such as a drift without an earlier version."""
    return result.observed is None and result.passed
