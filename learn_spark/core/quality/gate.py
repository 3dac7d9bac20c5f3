"""Gates: a one-row profile judged by Great Expectations, with Data Docs for people."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from learn_spark.core.errors import GateError


@dataclass(frozen=True)
class Rule:
    """The profile's ``measure`` must lie in [least, most] (None: no bound; neither: it is only reported)."""

    measure: str
    least: float | None
    most: float | None
    meaning: str
    severity: str = "fail"


@dataclass(frozen=True)
class RuleResult:
    """A rule, what was observed, and whether that passed."""

    measure: str
    least: float | None
    most: float | None
    meaning: str
    observed: float | None
    passed: bool
    severity: str = "fail"

    def sentence(self) -> str:
        """What was expected and observed, for a person."""
        bounds = []
        if self.least is not None:
            bounds.append(f"at least {self.least:g}")
        if self.most is not None:
            bounds.append(f"at most {self.most:g}")
        observed = "nothing" if self.observed is None else f"{self.observed:g}"
        return f"{self.measure} is {observed}, expected {' and '.join(bounds)} ({self.meaning})"


@dataclass(frozen=True)
class GateReport:
    """The results of one gate and the Data Docs page that shows them."""

    gate: str
    results: tuple[RuleResult, ...]
    docs: Path

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

    def require(self) -> None:
        """GateError, naming each broken rule with the observed and the expected, unless the gate passed."""
        broken = [result.sentence() for result in self.broken("fail")]
        if broken:
            raise GateError(f"the gate {self.gate} said no: " + "; ".join(broken) + f". Data Docs: {self.docs}")


def docs_page(folder: Path, gate: str, title: str | None = None) -> Path:
    """The newest page about ``title`` (else the gate) in the Data Docs below ``folder``.

    Not the index unless there is no page: its lists are drawn by scripts from the network.
    """
    site = folder / "gx" / "uncommitted" / "data_docs" / "local_site"
    pages = sorted((site / "validations" / _plain_name(gate) / _plain_name(title or gate)).rglob("*.html"))
    return pages[-1] if pages else site / "index.html"


def run_gate(
    gate: str, profile: Mapping[str, float | None], rules: Sequence[Rule], folder: Path, *, title: str | None = None
) -> GateReport:
    """Judge ``profile`` (measure -> value) by ``rules``; the Data Docs are written below ``folder``.

    A measure that is null fails its rule, unless the rule has no bound. ``title`` is what errors call the gate.
    """
    unknown = [rule.measure for rule in rules if rule.measure not in profile]
    if unknown:
        raise ValueError(f"gate {gate}: the profile has no {', '.join(unknown)}")
    import pandas as pd

    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations as gx
        from great_expectations import expectations as gxe
        from great_expectations.data_context.types.base import ProgressBarsConfig

        logging.getLogger("great_expectations").setLevel(logging.ERROR)
        context = gx.get_context(mode="file", project_root_dir=folder)
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        # Great Expectations knows no expectation without a bound.
        bounded = [rule for rule in rules if rule.least is not None or rule.most is not None]
        frame = pd.DataFrame([{rule.measure: profile[rule.measure] for rule in rules}], dtype="float64")
        asset_name = _plain_name(gate)
        try:
            asset = context.data_sources.get("profiles").get_asset(asset_name)
        except (KeyError, LookupError, ValueError):
            source = context.data_sources.add_or_update_pandas("profiles")
            asset = source.add_dataframe_asset(asset_name)
            asset.add_batch_definition_whole_dataframe("profile")
        suite = gx.ExpectationSuite(
            name=asset_name,
            expectations=[
                expectation
                for rule in bounded
                for expectation in (
                    gxe.ExpectColumnValuesToNotBeNull(column=rule.measure),
                    gxe.ExpectColumnMaxToBeBetween(
                        column=rule.measure,
                        min_value=rule.least,
                        max_value=rule.most,
                        meta={"notes": {"format": "string", "content": [f"{rule.meaning} ({rule.severity})"]}},
                    ),
                )
            ],
        )
        validation = gx.ValidationDefinition(
            name=asset_name,
            data=asset.get_batch_definition("profile"),
            suite=context.suites.add_or_update(suite),
        )
        checkpoint = gx.Checkpoint(
            name=asset_name,
            validation_definitions=[context.validation_definitions.add_or_update(validation)],
            actions=[gx.checkpoint.UpdateDataDocsAction(name="docs")],
            result_format="COMPLETE",
        )
        outcome = context.checkpoints.add_or_update(checkpoint).run(
            batch_parameters={"dataframe": frame}, run_id=gx.RunIdentifier(run_name=_plain_name(title or gate))
        )
    verdicts: dict[str, bool] = {rule.measure: True for rule in rules}
    for run in outcome.run_results.values():
        for result in run.results:
            assert result.expectation_config is not None
            measure = result.expectation_config.kwargs["column"]
            verdicts[measure] = verdicts[measure] and bool(result.success)
    results = tuple(
        RuleResult(
            rule.measure,
            rule.least,
            rule.most,
            rule.meaning,
            _plain(profile[rule.measure]),
            verdicts[rule.measure],
            rule.severity,
        )
        for rule in rules
    )
    return GateReport(title or gate, results, docs_page(folder, gate, title))


def _plain_name(text: str) -> str:
    return re.sub(r"\W+", "-", text)


def _plain(value: float | None) -> float | None:
    return None if value is None else float(value)
