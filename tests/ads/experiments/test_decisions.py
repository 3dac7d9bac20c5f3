"""Sample ratio, corrections and power against slow second implementations and simulation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from learn_spark.ads.experiments.checks import _balance
from learn_spark.ads.experiments.corrections import corrected
from learn_spark.ads.experiments.moments import SUMS, WIDTH, Moments
from learn_spark.ads.experiments.power import detectable, power, users_needed
from learn_spark.ads.experiments.sample_ratio import sample_ratio_p
from learn_spark.ads.experiments.user_table import WHOLE
from learn_spark.core.settings.experiment import ExperimentSettings
from learn_spark.evaluation.resampling import Resamples


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9])
def test_the_p_of_a_sample_ratio_is_scipys(degrees: int) -> None:
    for moved in (0, 20, 60, 100, 260, 999):
        users = {f"arm{number}": 1000 for number in range(degrees + 1)}
        users |= {"arm0": 1000 + moved, "arm1": 1000 - moved}
        expected = stats.chisquare(list(users.values())).pvalue
        assert sample_ratio_p(users, dict.fromkeys(users, 0.5)) == pytest.approx(expected, rel=1e-9)


def test_a_sample_ratio_mismatch_is_seen() -> None:
    even = {"control": 1.0, "treatment": 1.0}
    assert sample_ratio_p({"control": 821_588, "treatment": 815_482}, even) == pytest.approx(1.8e-6, rel=0.05)
    assert sample_ratio_p({"control": 5000, "treatment": 5050}, even) > 0.5
    three = {"a": 2.0, "b": 1.0, "c": 1.0}
    expected = stats.chisquare([5100, 2400, 2500], [5000, 2500, 2500]).pvalue
    assert sample_ratio_p({"a": 5100, "b": 2400, "c": 2500}, three) == pytest.approx(expected)
    for users, shares in (({"a": 1}, {"a": 1.0}), ({"a": 0, "b": 0}, even), ({"control": 0, "treatment": 0}, even)):
        with pytest.raises(ValueError, match="needs two arms"):
            sample_ratio_p(users, shares)


def slow_holm(p: Sequence[float]) -> list[float]:
    """The smallest alpha, of those at which something changes, at which stepping down rejects each."""

    def rejects(alpha: float) -> set[int]:
        left = sorted(range(len(p)), key=lambda at: p[at])
        rejected: set[int] = set()
        while left and p[left[0]] * len(left) <= alpha + 1e-12:
            rejected.add(left.pop(0))
        return rejected

    levels = sorted({min(1.0, one * factor) for one in p for factor in range(1, len(p) + 1)} | {1.0})
    return [next((level for level in levels if at in rejects(level)), 1.0) for at in range(len(p))]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_corrections_are_those_of_slow_definitions(p: list[float]) -> None:
    assert corrected(p, "holm") == pytest.approx(slow_holm(p), abs=1e-9)
    assert corrected(p, "bonferroni") == [min(1.0, one * len(p)) for one in p]
    assert corrected(p, "benjamini-hochberg") == pytest.approx(stats.false_discovery_control(p), abs=1e-12)
    assert corrected(p, "none") == p


def test_looking_at_many_cohorts_without_an_effect_finds_nothing_too_often() -> None:
    generator = np.random.default_rng(0)
    rounds = generator.random((2000, 20))
    shares = {how: np.mean([min(corrected(row, how)) < 0.05 for row in rounds.tolist()]) for how in ("none", "holm")}
    assert shares["none"] > 0.6
    assert shares["holm"] < 0.07


def test_corrections_refuse_what_is_no_probability() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        corrected([0.5, math.nan], "holm")


def test_power_is_what_simulation_gives() -> None:
    z = np.random.default_rng(0).standard_normal(200_000) + 2.0
    assert power(2.0, 1.0, 0.05) == pytest.approx((np.abs(z) > 1.959964).mean(), abs=0.004)
    assert power(0.0, 1.0, 0.05) == pytest.approx(0.05)
    # (1.96 + 0.84) standard errors, the textbook's figure.
    assert detectable(2.0, 0.05, 0.8) == pytest.approx(2 * 2.80158, rel=1e-4)
    assert power(detectable(1.0, 0.1, 0.6), 1.0, 0.1) == pytest.approx(0.6)
    assert users_needed(1000, 1.0, 2.80158, 0.05, 0.8) == pytest.approx(1000, abs=1)
    assert users_needed(1000, 1.0, 1.40079, 0.05, 0.8) == pytest.approx(4000, abs=1)


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: detectable(1.0, 0.05, 0.04), "between alpha 0.05 and 1"),
    (lambda: users_needed(10, 1.0, 0.0, 0.05, 0.8), "no number of users detects"),
    (lambda: Resamples(0, 1), "at least one sample"),
    (lambda: sample_ratio_p({"a": -1, "b": 3}, {"a": 1.0, "b": 1.0}), "needs two arms with users"),
]


@pytest.mark.parametrize(("ask", "message"), REFUSED)
def test_what_cannot_be_answered_is_refused(ask: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask()


def test_ratios_of_an_arm_without_a_past_are_not_compared() -> None:
    """Without exposures before the start, conversions an exposure are no number there."""
    given = {"name": "e", "path": "logs", "logs": [{"files": "*"}], "metrics": ["conversion_rate"]}
    experiment = ExperimentSettings.model_validate(given)
    chance = np.random.default_rng(0)
    with_past, without = chance.random((2, 50, WIDTH))
    without[:, len(SUMS) :] = 0.0
    moments = {(*WHOLE, "control"): Moments.of(with_past), (*WHOLE, "treatment"): Moments.of(without)}
    assert _balance(moments, ["treatment"], experiment) is None
    moments[*WHOLE, "treatment"] = Moments.of(with_past)
    assert _balance(moments, ["treatment"], experiment).verdict == "passed"
