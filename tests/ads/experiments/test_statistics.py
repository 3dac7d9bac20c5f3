"""The arithmetic of experiments against slow second implementations, scipy, and simulated truth."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from learn_spark.ads.experiments.assignment import arm
from learn_spark.ads.experiments.cuped import coefficients
from learn_spark.ads.experiments.lift import contrast, effect, values
from learn_spark.ads.experiments.metrics import METRICS, Metric
from learn_spark.ads.experiments.moments import SUMS, WIDTH, Moments
from learn_spark.ads.experiments.sample_ratio import sample_ratio_p
from learn_spark.ads.experiments.simulate import simulated_users
from learn_spark.evaluation.mixing import mixed
from learn_spark.evaluation.resampling import Resamples, interval

NONE = np.zeros(WIDTH)
REVENUE, RATE = METRICS["revenue_per_user"], METRICS["conversion_rate"]


def arms(users: int, seed: int, lift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """(control's sums, treatment's sums) of a simulated experiment."""
    sums, treated, _ = simulated_users(users, seed=seed, lift=lift)
    return sums[~treated], sums[treated]


# Assignment


def test_an_arm_is_what_it_was_worked_out_to_be() -> None:
    """By sha256sum in a shell, of salt, experiment and user with 0x1f between: 0546b, 3101f, 2a514, 9e7dc begin it."""
    expected = ["control", "control", "control", "treatment"]
    assert [arm(user, "features", "s1") for user in ("u1", "u2", "u3", "u4")] == expected
    # 0x0546b / 16^5 is 0.0206, 0x3101f / 16^5 is 0.1914.
    assert [arm(user, "features", "s1", {"a": 0.1, "b": 0.9}) for user in ("u1", "u2")] == ["a", "b"]


def test_assignment_is_balanced_and_independent_between_experiments_and_salts() -> None:
    users = [f"user-{n}" for n in range(8_000)]
    arms_of = {
        (experiment, salt): [arm(user, experiment, salt) for user in users]
        for experiment, salt in (("a", "s"), ("b", "s"), ("a", "t"))
    }
    for given_arms in arms_of.values():
        count = Counter(given_arms)
        assert stats.binomtest(count["treatment"], len(users)).pvalue > 0.001
    first = arms_of["a", "s"]
    for other in (arms_of["b", "s"], arms_of["a", "t"]):
        table = Counter(zip(first, other, strict=True))
        cells = [[table[x, y] for y in ("control", "treatment")] for x in ("control", "treatment")]
        assert stats.chi2_contingency(cells).pvalue > 0.001


def test_shares_are_kept_and_more_traffic_moves_nobody() -> None:
    users = [f"{n}" for n in range(8_000)]
    shares = {"control": 2, "b": 1, "c": 1}
    some, more = ([arm(user, "x", "s", shares, traffic=traffic) for user in users] for traffic in (0.1, 0.5))
    count = Counter(more)
    assert stats.binomtest(len(users) - count[None], len(users), 0.5).pvalue > 0.001
    inside = {name: count[name] for name in shares}
    assert sample_ratio_p(inside, shares) > 0.001
    assert all(after == before for before, after in zip(some, more, strict=True) if before is not None)
    assert 0.08 < sum(one is not None for one in some) / len(users) < 0.12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arms": {}}, "names with shares above 0"),
        ({"arms": {"a": 0.0, "b": 1.0}}, "names with shares above 0"),
        ({"traffic": 0.0}, "traffic is a share"),
        ({"salt": "a\x1fb"}, "U\\+001F"),
    ],
)
def test_an_assignment_that_makes_no_sense_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        arm("u", "x", **{"salt": "s", **arguments})  # type: ignore[arg-type]


# Moments


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=5))
def test_moments_of_parts_merge_into_those_of_the_whole(sizes: list[int]) -> None:
    rows = np.random.default_rng(sum(sizes)).lognormal(size=(sum(sizes), 3)) + 1e6
    merged = Moments.of(rows[:0])
    for part in np.split(rows, np.cumsum(sizes)[:-1]):
        merged = merged.merged(Moments.of(part))
    assert merged.users == len(rows)
    if len(rows) > 1:
        np.testing.assert_allclose(merged.mean, rows.mean(axis=0))
        np.testing.assert_allclose(merged.covariance(), np.cov(rows.T), rtol=1e-5, atol=1e-8)


# Lift


def test_the_difference_of_means_is_welchs() -> None:
    control, treatment = arms(800, 1, lift=0.2)
    measured = effect(contrast(Moments.of(control), Moments.of(treatment), REVENUE, NONE), 0.05)
    a, b = control[:, SUMS.index("revenue")], treatment[:, SUMS.index("revenue")]
    welch = stats.ttest_ind(b, a, equal_var=False)
    assert measured.difference == pytest.approx(b.mean() - a.mean())
    assert measured.difference / measured.standard_error == pytest.approx(welch.statistic)
    assert measured.p == pytest.approx(welch.pvalue, abs=0.002)
    assert measured.lift == pytest.approx(b.mean() / a.mean() - 1)
    assert measured.difference_high - measured.difference == pytest.approx(1.959964 * measured.standard_error, rel=1e-5)


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
@pytest.mark.parametrize("with_pre", [False, True])
def test_variances_are_those_of_the_jackknife(metric: Metric, with_pre: bool) -> None:
    """A second way to the same variance, which knows nothing of gradients: leave one user out at a time."""
    control, treatment = arms(4000, 2, lift=0.3)
    of = Moments.of(control), Moments.of(treatment)
    theta = coefficients(*of, metric) if with_pre else NONE
    measured = contrast(*of, metric, theta)
    share = len(control) / (len(control) + len(treatment))

    def left_out(rows: np.ndarray) -> np.ndarray:
        return (rows.sum(axis=0) - rows) / (len(rows) - 1)

    def both(below: np.ndarray, above: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        below, above = values(below, above, metric, theta, share)
        return above - below, above / below - 1

    expected = np.zeros(2)
    for pair in (
        (left_out(control), treatment.mean(axis=0)),
        (control.mean(axis=0), left_out(treatment)),
    ):
        for at, replicas in enumerate(both(*pair)):
            n = len(replicas)
            expected[at] += (n - 1) / n * ((replicas - replicas.mean()) ** 2).sum()
    assert [measured.difference_variance, measured.lift_variance] == pytest.approx(expected, rel=0.02)


def test_delta_method_and_bootstrap_agree() -> None:
    sums, treated, seeds = simulated_users(4000, seed=3, lift=0.1)
    resamples = Resamples(2000, seed=1)
    # In two batches, as a long table of users is read.
    for part in (slice(0, 1500), slice(1500, None)):
        rows = {name: np.flatnonzero(chosen[part]) for name, chosen in (("c", ~treated), ("t", treated))}
        resamples.add(seeds[part], [(name, at, sums[part][at]) for name, at in rows.items()])
    of = Moments.of(sums[~treated]), Moments.of(sums[treated])
    share = float((~treated).mean())
    for metric, with_pre in product(METRICS.values(), (False, True)):
        theta = coefficients(*of, metric) if with_pre else NONE
        delta = effect(contrast(*of, metric, theta), 0.05)
        below, above = values(resamples.means("c"), resamples.means("t"), metric, theta, share)
        drawn = interval(above / below - 1, 0.05)
        assert drawn is not None
        assert delta.lift_low is not None
        assert delta.lift_high is not None
        width = delta.lift_high - delta.lift_low
        assert drawn[1] - drawn[0] == pytest.approx(width, rel=0.08), metric.name
        assert abs(sum(drawn) - delta.lift_low - delta.lift_high) / 2 < 0.05 * width, metric.name


def test_the_bootstrap_depends_on_users_and_not_on_their_order() -> None:
    sums, _, seeds = simulated_users(300, seed=4)
    order = np.random.default_rng(0).permutation(300)
    means = []
    for rows, parts in ((np.arange(300), 1), (order, 7)):
        one = Resamples(50, seed=9)
        for part in np.array_split(rows, parts):
            one.add(seeds[part], [("all", np.arange(len(part)), sums[part])])
        means.append(one.means("all"))
    np.testing.assert_allclose(*means)
    times = mixed(seeds, np.arange(3, dtype=np.uint64))
    assert len(np.unique(times)) == times.size


def test_a_metric_without_a_value_in_the_control_has_no_lift() -> None:
    control, treatment = arms(200, 5)
    control[:, SUMS.index("revenue")] = 0
    measured = effect(contrast(Moments.of(control), Moments.of(treatment), REVENUE, NONE), 0.05)
    assert measured.lift is None
    assert measured.difference > 0
    same = effect(contrast(Moments.of(control * 0), Moments.of(control * 0), REVENUE, NONE), 0.05)
    assert (same.difference, same.p) == (0.0, 1.0)


# CUPED


def test_theta_is_the_slope_of_least_squares_and_reduces_variance_as_correlation_says() -> None:
    control, treatment = arms(3000, 6)
    of = Moments.of(control), Moments.of(treatment)
    before = SUMS.index("revenue") + len(SUMS)
    theta = coefficients(*of, REVENUE)
    assert np.flatnonzero(theta).tolist() == [before]
    both = np.concatenate([control - control.mean(axis=0), treatment - treatment.mean(axis=0)])
    slope, correlation = (
        statistic(both[:, before], both[:, SUMS.index("revenue")])
        for statistic in (lambda x, y: stats.linregress(x, y).slope, lambda x, y: stats.pearsonr(x, y).statistic)
    )
    assert theta[before] == pytest.approx(slope, rel=0.02)
    plain, reduced = (contrast(*of, REVENUE, used) for used in (NONE, theta))
    kept = float(reduced.difference_variance / plain.difference_variance)
    assert kept == pytest.approx(1 - correlation**2, rel=0.02)
    assert kept < 0.95


def test_without_a_history_that_varies_cuped_changes_nothing() -> None:
    control, treatment = arms(400, 7)
    for rows in (control, treatment):
        rows[:, len(SUMS) :] = 0
    of = Moments.of(control), Moments.of(treatment)
    for metric in METRICS.values():
        assert not coefficients(*of, metric).any()


# Simulated truth


def simulate(experiments: int, users: int, lift: float, metric: Metric) -> list[tuple[float, float, bool, bool]]:
    """(p, p with CUPED, whether the interval of the lift holds the truth, and CUPED's) of each experiment."""
    experiments_run = []
    for seed in range(experiments):
        of = tuple(map(Moments.of, arms(users, seed, lift)))
        row: list[float | bool] = []
        for theta in (NONE, coefficients(*of, metric)):
            one = effect(contrast(*of, metric, theta), 0.05)
            assert one.lift_low is not None
            assert one.lift_high is not None
            row += [one.p, one.lift_low <= lift <= one.lift_high]
        experiments_run.append((row[0], row[2], row[1], row[3]))
    return experiments_run  # type: ignore[return-value]


@pytest.mark.parametrize("metric", [REVENUE, RATE], ids=["mean", "ratio"])
def test_a_a_gives_five_per_cent_of_false_alarms_at_five_per_cent(metric: Metric) -> None:
    """600 experiments without an effect: within three standard deviations, 0.9 % each, of 5 %."""
    results = simulate(600, 1000, 0.0, metric)
    for at in (0, 1):
        p = np.array([row[at] for row in results])
        assert 0.023 <= (p < 0.05).mean() <= 0.077
        assert stats.kstest(p, "uniform").pvalue > 0.001


def test_exposures_taken_as_the_unit_would_give_more() -> None:
    """The planted fault: a user's exposures are alike, and a test over them as if they were not cries wolf."""
    alarms = 0
    for seed in range(200):
        control, treatment = arms(1000, seed)
        # Users who differ more than the simulation's own: half of them never convert.
        for rows in (control, treatment):
            rows[::2, SUMS.index("conversions")] = 0
            rows[1::2, SUMS.index("conversions")] = rows[1::2, 0].round(0) * (rows[1::2, 0] > 12)
        shown, taken = ([rows[:, at].sum() for rows in (control, treatment)] for at in (0, 1))
        rate = sum(taken) / sum(shown)
        error = math.sqrt(rate * (1 - rate) * (1 / shown[0] + 1 / shown[1]))
        alarms += abs(taken[1] / shown[1] - taken[0] / shown[0]) > 1.96 * error
        ours = effect(contrast(Moments.of(control), Moments.of(treatment), RATE, NONE), 0.05)
        assert ours.standard_error > 1.3 * error
    assert alarms / 200 > 0.12


@pytest.mark.parametrize("metric", [REVENUE, RATE], ids=["mean", "ratio"])
def test_a_known_lift_is_given_back(metric: Metric) -> None:
    results = simulate(200, 2000, 0.25, metric)
    for at in (2, 3):
        assert 0.9 <= np.mean([row[at] for row in results]) <= 0.99
    plain, reduced = (np.mean([row[at] < 0.05 for row in results]) for at in (0, 1))
    assert reduced >= plain > 0.3
