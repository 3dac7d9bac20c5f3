"""The statistics of experiments against statsmodels and scipy, which share no code with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower, TTestIndPower
from statsmodels.stats.proportion import confint_proportions_2indep
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from learn_spark.ads.experiments.corrections import Correction, corrected
from learn_spark.ads.experiments.cuped import coefficients
from learn_spark.ads.experiments.lift import Effect, contrast, effect
from learn_spark.ads.experiments.metrics import METRICS, Metric
from learn_spark.ads.experiments.moments import SUMS, WIDTH, Moments
from learn_spark.ads.experiments.power import detectable, power, users_needed
from learn_spark.ads.experiments.sample_ratio import sample_ratio_p
from learn_spark.ads.experiments.simulate import simulated_users

ALPHA = 0.05
MEANS = [metric for metric in METRICS.values() if metric.per is None]
RATIOS = [metric for metric in METRICS.values() if metric.per is not None]


def simulated_arms(users: int, seed: int, share: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """(control's sums [n, K], treatment's sums [m, K]) with a lift of 0.2."""
    sums, treated, _ = simulated_users(users, seed=seed, lift=0.2, share=share)
    return sums[~treated], sums[treated]


def equal_arms(users: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """As ``simulated_arms``, each arm of the size of the smaller one."""
    control, treatment = simulated_arms(users, seed)
    size = min(len(control), len(treatment))
    return control[:size], treatment[:size]


def effect_of(control: np.ndarray, treatment: np.ndarray, metric: Metric, *, with_cuped: bool = False) -> Effect:
    moments = Moments.of(control), Moments.of(treatment)
    theta = coefficients(*moments, metric) if with_cuped else np.zeros(WIDTH)
    return effect(contrast(*moments, metric, theta), ALPHA)


# Means


@pytest.mark.parametrize("metric", MEANS, ids=lambda metric: metric.name)
@pytest.mark.parametrize("share", [0.5, 0.1])
def test_a_difference_of_means_is_that_of_the_z_test_with_unequal_variances(metric: Metric, share: float) -> None:
    arms = simulated_arms(1500, 1, share)
    ours = effect_of(*arms, metric)
    control, treatment = (rows[:, metric.columns[0]] for rows in arms)
    theirs = CompareMeans(DescrStatsW(treatment), DescrStatsW(control))
    z, p = theirs.ztest_ind(usevar="unequal")
    assert ours.difference / ours.standard_error == pytest.approx(z)
    assert ours.p == pytest.approx(p)
    assert (ours.difference_low, ours.difference_high) == pytest.approx(theirs.zconfint_diff(ALPHA, usevar="unequal"))
    # Student's t by Welch, which is the normal's limit: the standard error is the same, the tails a little heavier.
    welch = stats.ttest_ind(treatment, control, equal_var=False)
    assert ours.difference / ours.standard_error == pytest.approx(welch.statistic)
    assert ours.p == pytest.approx(welch.pvalue, abs=0.005)


def test_a_difference_of_shares_is_walds() -> None:
    arms = simulated_arms(4000, 2)
    ours = effect_of(*arms, METRICS["converting_users"])
    (a, n), (b, m) = ((rows[:, SUMS.index("converters")].sum(), len(rows)) for rows in arms)
    expected = confint_proportions_2indep(b, m, a, n, method="wald", compare="diff", alpha=ALPHA)
    # Ours divides by n - 1, Wald's by n.
    assert (ours.difference_low, ours.difference_high) == pytest.approx(expected, rel=1e-3)


def counted(users: int, converters: int) -> np.ndarray:
    """Sums of an arm in which each of the first users converted once."""
    sums = np.zeros((users, WIDTH))
    for column in ("conversions", "converters", "exposures"):
        sums[:, SUMS.index(column)] = np.arange(users) < converters
    return sums


@pytest.mark.parametrize(
    ("below", "above"),
    [(3, 60), (60, 3), (3, 4), (0, 5), (5, 0), (40, 60), (60, 79), (60, 82), (60, 85), (900, 1000), (1, 1)],
)
def test_the_interval_of_a_lift_is_the_inverted_z_test(below: int, above: int) -> None:
    """Of 20,000 users an arm: at both ends the z test of treatment - (1 + lift) control gives p = alpha."""
    control, treatment = counted(20_000, below), counted(20_000, above)
    ours = effect_of(control, treatment, METRICS["converting_users"])
    if below == 0:
        assert (ours.lift, ours.lift_low, ours.lift_high) == (None, None, None)
        return
    column = SUMS.index("converters")

    def p_at(lift: float) -> float:
        arms = DescrStatsW(treatment[:, column]), DescrStatsW((1 + lift) * control[:, column])
        return float(CompareMeans(*arms).ztest_ind(usevar="unequal")[1])

    assert ours.lift is not None
    assert ours.lift_low is not None
    assert -1 <= ours.lift_low <= ours.lift
    assert (ours.lift_low > 0 or (ours.lift_high is not None and ours.lift_high < 0)) == (ours.p < ALPHA)
    if ours.lift_low > -1:
        assert p_at(ours.lift_low) == pytest.approx(ALPHA, rel=1e-6)
    if ours.lift_high is None:
        # However large the ratio: the control cannot be told from zero.
        assert p_at(1e6) > ALPHA
    elif above:
        assert ours.lift_high >= ours.lift
        assert p_at(ours.lift_high) == pytest.approx(ALPHA, rel=1e-6)


@pytest.mark.parametrize("converted", [2, 4, 6, 8, 20, 60, 400])
def test_an_arm_without_a_conversion_has_an_upper_bound(converted: int) -> None:
    """Against the exact conditional test of two Poisson rates (Przyborowski and Wilenski 1940), for which the control's
    count is binomial: no conversion of the treatment among all ``converted`` has the probability (1 + ratio)^-N."""
    control, none = counted(20_000, converted), counted(20_000, 0)
    for metric in (METRICS["converting_users"], METRICS["conversions_per_user"], METRICS["conversion_rate"]):
        exposed = [np.array(arm) for arm in (control, none)]
        for arm in exposed:
            arm[:, SUMS.index("exposures")] = 1
        ours = effect_of(*exposed, metric)
        assert (ours.lift, ours.lift_low) == (-1.0, -1.0)
        exact_p = stats.binomtest(0, converted, 0.5).pvalue
        assert ours.p >= min(exact_p, 0.3)
        assert (ours.p < ALPHA) == (ours.lift_high is not None and ours.lift_high < 0)
        if converted < 4:
            assert ours.lift_high is None
            continue
        exact = (ALPHA / 2) ** (-1 / converted) - 1
        assert ours.lift_high is not None
        assert ours.lift_high + 1 >= exact
        assert ours.lift_high + 1 == pytest.approx(exact, rel=0.2) or converted < 20
        # With CUPED too: there is nothing to adjust.
        assert effect_of(*exposed, metric, with_cuped=True) == ours
    # The other way round there is no lift, but p is the same.
    assert effect_of(none, control, METRICS["converting_users"]).p == pytest.approx(
        effect_of(control, none, METRICS["converting_users"]).p
    )


def test_intervals_of_rare_conversions_cover_the_true_lift() -> None:
    """2,000 users an arm; 1 conversion is expected in the treatment, and a third of the treatments have none."""
    chance, users, shares = np.random.default_rng(5), 2_000, (0.02, 0.0005)
    covered, empty = [], 0
    for _ in range(400):
        counts = [int(chance.binomial(users, share)) for share in shares]
        ours = effect_of(counted(users, counts[0]), counted(users, counts[1]), METRICS["converting_users"])
        assert ours.lift_low is not None
        high = np.inf if ours.lift_high is None else ours.lift_high
        covered.append(ours.lift_low <= shares[1] / shares[0] - 1 <= high)
        empty += counts[1] == 0
    assert empty > 100
    assert np.mean(covered) >= 0.93


@settings(max_examples=100, deadline=None)
@given(
    users=st.integers(20, 60),
    seed=st.one_of(st.sampled_from([559, 1050]), st.integers(0, 10_000)),
    metric=st.sampled_from(list(METRICS.values())),
    with_cuped=st.booleans(),
)
def test_a_lift_agrees_with_its_p_and_is_inside_of_its_interval(
    users: int, seed: int, metric: Metric, with_cuped: bool
) -> None:
    arms = simulated_arms(users, seed)
    if min(map(len, arms)) < 2:
        return
    with np.errstate(all="ignore"):
        ours = effect_of(*arms, metric, with_cuped=with_cuped)
    if ours.lift is None:
        return
    low = -np.inf if ours.lift_low is None else ours.lift_low
    high = np.inf if ours.lift_high is None else ours.lift_high
    assert low - 1e-9 <= ours.lift <= high + 1e-9
    assert low >= -1 or ours.lift < -1
    assert (ours.p < ALPHA) == (not low <= 0 <= high)


@pytest.mark.parametrize("seed", [559, 1050])
def test_where_the_kept_ratios_have_a_gap_the_side_of_the_estimate_is_given(seed: int) -> None:
    """Two experiments of 20 users, of the 36,000 that were tried, whose interval spanned a lift of 0 that p refuses."""
    ours = effect_of(*simulated_arms(20, seed), METRICS["revenue_per_user"], with_cuped=True)
    assert ours.lift is not None
    assert ours.p < ALPHA
    if ours.lift > 0:
        assert ours.lift_low is not None
        assert (0 < ours.lift_low < ours.lift, ours.lift_high) == (True, None)
    else:
        assert ours.lift_high is not None
        assert (ours.lift < ours.lift_high < 0, ours.lift_low) == (True, None)


# Ratios


def delta_method(rows: np.ndarray, metric: Metric) -> tuple[float, float]:
    """(ratio of sums, its variance) written out as Deng, Knoblich and Lu 2018 do, without gradients or matrices."""
    over, per = (rows[:, column] for column in metric.columns)
    mean, variance = (over.mean(), per.mean()), np.cov(over, per)
    terms = variance[0, 0] - 2 * mean[0] / mean[1] * variance[0, 1] + (mean[0] / mean[1]) ** 2 * variance[1, 1]
    return mean[0] / mean[1], terms / mean[1] ** 2 / len(rows)


@pytest.mark.parametrize("metric", RATIOS, ids=lambda metric: metric.name)
@pytest.mark.parametrize("share", [0.5, 0.1])
def test_a_ratio_of_sums_is_the_delta_methods(metric: Metric, share: float) -> None:
    arms = simulated_arms(1500, 3, share)
    ours = effect_of(*arms, metric)
    (control, of_control), (treatment, of_treatment) = (delta_method(rows, metric) for rows in arms)
    assert (ours.control, ours.treatment) == pytest.approx((control, treatment))
    assert ours.standard_error == pytest.approx(np.sqrt(of_control + of_treatment))
    # The lift is a ratio of two independent estimates: their relative variances add up.
    relative = of_control / control**2 + of_treatment / treatment**2
    assert ours.lift_error == pytest.approx(treatment / control * np.sqrt(relative))
    z = (treatment - control) / np.sqrt(of_control + of_treatment)
    assert ours.p == pytest.approx(2 * stats.norm.sf(abs(z)))


def test_a_conversion_rate_is_a_regression_over_exposures_clustered_by_user() -> None:
    """One row an exposure, least squares on the arm, errors robust to users whose exposures are alike."""
    arms = simulated_arms(600, 4)
    converted, treated, user = [], [], []
    first_user = 0
    for arm, rows in enumerate(arms):
        exposures, conversions = (rows[:, SUMS.index(name)].astype(int) for name in ("exposures", "conversions"))
        for number, (shown, taken) in enumerate(zip(exposures, conversions, strict=True)):
            converted += [1.0] * taken + [0.0] * (shown - taken)
            treated += [float(arm)] * shown
            user += [first_user + number] * shown
        first_user += len(rows)
    clusters = {"groups": np.array(user), "use_correction": False}
    fitted = sm.OLS(converted, sm.add_constant(np.array(treated))).fit(cov_type="cluster", cov_kwds=clusters)
    ours = effect_of(*arms, METRICS["conversion_rate"])
    assert ours.difference == pytest.approx(fitted.params[1])
    # Ours divides by n - 1 users, the uncorrected sandwich by n.
    assert ours.standard_error == pytest.approx(fitted.bse[1], rel=5e-3)


# CUPED


@pytest.mark.parametrize("metric", MEANS, ids=lambda metric: metric.name)
@pytest.mark.parametrize("seed", [5, 6])
def test_cuped_is_least_squares_with_the_time_before_as_covariate(metric: Metric, seed: int) -> None:
    """With arms of one size CUPED's theta is the pooled slope, so that the two estimates are one number."""
    arms = equal_arms(2000, seed)
    ours = effect_of(*arms, metric, with_cuped=True)
    rows = np.concatenate(arms)
    treated = np.repeat([0.0, 1.0], len(arms[0]))
    covariate = rows[:, metric.covariates[0]]
    design = sm.add_constant(np.column_stack([treated, covariate - covariate.mean()]))
    fitted = sm.OLS(rows[:, metric.columns[0]], design).fit(cov_type="HC1")
    moments = tuple(map(Moments.of, arms))
    assert coefficients(*moments, metric)[metric.covariates[0]] == pytest.approx(fitted.params[2])
    assert ours.difference == pytest.approx(fitted.params[1])
    assert ours.standard_error == pytest.approx(fitted.bse[1], rel=5e-3)
    # With the covariate centred on both arms, the intercept is the control's adjusted mean.
    assert (ours.control, ours.treatment) == pytest.approx((fitted.params[0], fitted.params[0] + fitted.params[1]))


def test_cuped_of_unequal_arms_is_near_least_squares_and_varies_less() -> None:
    metric = METRICS["revenue_per_user"]
    arms = simulated_arms(4000, 7, share=0.2)
    ours, plain = effect_of(*arms, metric, with_cuped=True), effect_of(*arms, metric)
    rows, treated = np.concatenate(arms), np.repeat([0.0, 1.0], [len(rows) for rows in arms])
    design = sm.add_constant(np.column_stack([treated, rows[:, metric.covariates[0]]]))
    fitted = sm.OLS(rows[:, metric.columns[0]], design).fit(cov_type="HC1")
    assert abs(ours.difference - fitted.params[1]) < 0.1 * fitted.bse[1]
    # theta is chosen for the least variance: no other slope, that of least squares included, can give less.
    assert ours.standard_error <= fitted.bse[1] * 1.005
    assert ours.standard_error < 0.97 * plain.standard_error


# Corrections


METHODS: list[tuple[Correction, str]] = [
    ("holm", "holm"),
    ("bonferroni", "bonferroni"),
    ("benjamini-hochberg", "fdr_bh"),
]


@pytest.mark.parametrize(("ours", "theirs"), METHODS)
@settings(max_examples=50, deadline=None)
@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_corrections_are_those_of_multipletests(ours: Correction, theirs: str, p: list[float]) -> None:
    assert corrected(p, ours) == pytest.approx(multipletests(p, method=theirs)[1], abs=1e-12)


# Power


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("ratio", [1.0, 0.25])
@pytest.mark.parametrize("effect_size", [0.02, 0.1, 0.15])
def test_power_and_sample_size_are_those_of_the_z_test(alpha: float, ratio: float, effect_size: float) -> None:
    """Effects in standard deviations; ``control`` users in one arm, ``ratio`` times as many in the other."""
    control = 1000
    error = np.sqrt(1 / control + 1 / (ratio * control))
    z, t = NormalIndPower(), TTestIndPower()
    assert power(effect_size, error, alpha) == pytest.approx(z.power(effect_size, control, alpha, ratio))
    assert power(effect_size, error, alpha) == pytest.approx(t.power(effect_size, control, alpha, ratio), abs=0.01)
    for target_power in (0.6, 0.8, 0.95):
        smallest = z.solve_power(None, control, alpha, target_power, ratio)
        assert detectable(error, alpha, target_power) == pytest.approx(smallest, rel=1e-4)
        needed = z.solve_power(effect_size, None, alpha, target_power, ratio) * (1 + ratio)
        users = users_needed(round(control * (1 + ratio)), error, effect_size, alpha, target_power)
        assert users == pytest.approx(needed, rel=1e-3, abs=1)


# Sample ratio


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(0.05, 1.0)), min_size=2, max_size=6))
def test_a_sample_ratio_is_pearsons_chi_squared(arms: Sequence[tuple[int, float]]) -> None:
    users = {f"arm{number}": count for number, (count, _) in enumerate(arms)}
    shares = {f"arm{number}": share for number, (_, share) in enumerate(arms)}
    parts = np.array(list(shares.values())) / sum(shares.values())
    expected = stats.chisquare(list(users.values()), parts * sum(users.values()))
    assert sample_ratio_p(users, shares) == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-300)
