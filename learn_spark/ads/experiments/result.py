"""The result of an experiment as plain values, for the page, the terminal and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from learn_spark.ads.experiments.lift import Effect

Verdict = Literal["passed", "warning", "failed"]


@dataclass(frozen=True)
class Check:
    """A condition of the experiment's validity, and whether the logs meet it."""

    name: str
    verdict: Verdict
    observed: str
    meaning: str


@dataclass(frozen=True)
class Comparison:
    """A treatment against the control in one metric, among all users or in one group of a cohort.

    ``plain`` is estimated from the experiment alone, ``reduced`` with the time before it too (CUPED; None without it).
    ``best`` is ``reduced`` if there is one, else ``plain``. Of ``best`` are p_adjusted, ``bootstrap`` (of the lift),
    ``detectable`` (the smallest relative lift that is detected with the settings' power), ``power`` (to detect the
    settings' effect) and ``users_needed``.
    """

    treatment: str
    cohort: str
    group: str
    metric: str
    users_control: int
    users_treatment: int
    plain: Effect
    reduced: Effect | None
    variance_kept: float | None
    bootstrap: tuple[float, float] | None
    p_adjusted: float
    detectable: float | None
    detectable_plain: float | None
    power: float | None
    users_needed: int | None

    @property
    def best(self) -> Effect:
        """With CUPED where there is a pre-period."""
        return self.reduced or self.plain


@dataclass(frozen=True)
class FalseAlarms:
    """A/A: how many of ``splits`` random halvings of one arm differ at alpha, without and with CUPED."""

    metric: str
    splits: int
    plain: int
    reduced: int | None
    quantiles: tuple[float, ...]  # of p (with CUPED where it is there), at 0.05, 0.1, ... 0.95


@dataclass(frozen=True)
class ExperimentResult:
    """The result of one experiment. ``whole`` and ``cohorts`` are empty in an A/A, ``false_alarms`` in any other.

    ``skipped`` are (cohort, group, why) of groups that were not compared; ``notes`` are caveats for readers.
    """

    name: str
    control: str
    users: Mapping[str, int]
    shares: Mapping[str, float]
    period: Mapping[str, str]
    rows: Mapping[str, int]
    refused: Mapping[str, int]
    checks: tuple[Check, ...]
    primary: str
    whole: tuple[Comparison, ...]
    cohorts: tuple[Comparison, ...]
    false_alarms: tuple[FalseAlarms, ...]
    skipped: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...]
    cohort_titles: Mapping[str, str]
    settings: Mapping[str, Any]
    files: tuple[tuple[str, str], ...]
    seconds: float
    run_id: str
    code_version: str

    @property
    def failed(self) -> list[Check]:
        """The checks that failed."""
        return [check for check in self.checks if check.verdict == "failed"]


def as_json(result: ExperimentResult) -> str:
    """The result as one JSON object."""
    return json.dumps(asdict(result), indent=1, default=str)
