"""Metrics of a ranker: by hand, against slow versions over all pairs and bins, and the properties they must have."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats

from learn_spark.ads.rankers.evaluation import (
    ArrayScores,
    Outcomes,
    difference,
    evaluate_rankers,
    metrics_of,
    over_seeds,
    resampled,
)
from learn_spark.ads.rankers.metrics import (
    auc,
    calibration,
    calibration_error,
    grouped_auc,
    log_loss,
    user_auc,
)


def slow_auc(scores: Any, labels: Any, weights: Any) -> float:
    right = pairs = 0.0
    for i, j in itertools.product(np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)):
        pair = weights[i] * weights[j]
        pairs += pair
        right += pair * (1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0)
    return right / pairs if pairs else float("nan")


def slow_error(scores: Any, labels: Any, weights: Any, bins: int) -> float:
    by_bin: dict[int, list[int]] = {}
    for i, score in enumerate(scores):
        below = sum(w for w, s in zip(weights, scores, strict=True) if s < score)
        by_bin.setdefault(int(below / sum(weights) * bins), []).append(i)
    gaps = [abs(sum(weights[i] * (scores[i] - labels[i]) for i in rows)) for rows in by_bin.values()]
    return sum(gaps) / sum(weights)


def drawn(seed: int, rows: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    return (
        chance.integers(1, 8, rows) / 8,
        chance.integers(0, 2, rows),
        chance.integers(1, 20, rows) / 2,
        chance.integers(0, 7, rows),
    )


@pytest.mark.parametrize("seed", range(8))
def test_against_all_pairs_and_slow_bins(seed: int) -> None:
    scores, labels, weights, users = drawn(seed)
    assert auc(scores, labels, weights) == pytest.approx(slow_auc(scores, labels, weights), abs=1e-12)
    each = [slow_auc(*(values[users == user] for values in (scores, labels, weights))) for user in range(7)]
    assert grouped_auc(scores, labels, weights, users, 7) == pytest.approx(each, abs=1e-12, nan_ok=True)
    assert calibration_error(scores, labels, weights, 4) == pytest.approx(slow_error(scores, labels, weights, 4))
    # A row of weight 3 is three rows of weight 1.
    times = np.random.default_rng(seed).integers(1, 4, len(scores))
    repeated = [np.repeat(values, times) for values in (scores, labels)]
    assert auc(scores, labels, times.astype(float)) == pytest.approx(auc(*repeated, np.ones(times.sum())), abs=1e-12)


def test_by_hand() -> None:
    ones = np.ones(3)
    assert auc(np.array([1, 2, 3]), np.array([0, 1, 1]), ones) == 1.0
    assert auc(np.array([1, 1, 1]), np.array([0, 1, 1]), ones) == 0.5
    # Pairs (.8 over .5) of weight 2 * 1 and (.2 under .5) of 1 * 1.
    assert auc(np.array([0.8, 0.2, 0.5]), np.array([1, 1, 0]), np.array([2.0, 1.0, 1.0])) == pytest.approx(2 / 3)
    assert np.isnan(auc(np.array([1.0, 2.0]), np.array([1, 1]), np.ones(2)))
    assert np.isnan(auc(np.array([]), np.array([]), np.array([])))
    assert log_loss(np.array([0.5, 0.25]), np.array([1, 0]), np.array([1.0, 3.0])) == pytest.approx(
        (np.log(2) - 3 * np.log(0.75)) / 4
    )
    assert log_loss(np.array([0.0]), np.array([1]), np.ones(1)) == pytest.approx(-np.log(1e-12))
    # One conversion, and nine exposures of weight ten: 1 / 91 observed, .1 predicted for each.
    scores, labels, weights = np.full(10, 0.1), np.array([1, *[0] * 9]), np.array([1.0, *[10.0] * 9])
    assert calibration(scores, labels, weights) == pytest.approx(9.1)
    assert calibration_error(scores, labels, weights, 10) == pytest.approx(0.1 - 1 / 91)
    assert np.isnan(calibration(scores, np.zeros(10), weights))


def test_user_aucs_leave_out_users_of_one_class_and_wuauc_counts_exposures() -> None:
    scores = np.array([0.9, 0.1, 0.2, 0.8, 0.7, 0.5, 0.4])
    labels, users = np.array([1, 0, 1, 0, 0, 1, 0]), np.array([0, 0, 1, 1, 1, 2, 3])
    aucs = grouped_auc(scores, labels, np.ones(7), users, 4)
    assert aucs == pytest.approx([1.0, 0.0, np.nan, np.nan], nan_ok=True)
    assert user_auc(aucs) == 0.5
    assert user_auc(aucs, np.array([2.0, 3.0, 1.0, 1.0])) == pytest.approx(2 / 5)
    assert np.isnan(user_auc(aucs[2:]))


def outcomes(labels: np.ndarray, weights: np.ndarray, users: np.ndarray) -> Outcomes:
    cohorts = {"item": users % 3, "user": np.full(len(users), 2)}
    return Outcomes(labels, weights, users, users, cohorts)


def test_the_interval_over_seeds_is_students() -> None:
    for seeds in range(2, 13):
        values = np.random.default_rng(seeds).normal(0.7, 0.02, seeds)
        error = values.std(ddof=1) / np.sqrt(seeds)
        expected = (values.mean(), *stats.t.interval(0.95, seeds - 1, values.mean(), error))
        assert over_seeds(values.tolist()) == pytest.approx(expected, abs=1e-12), seeds
    mean, low, high = over_seeds([0.70, 0.72, 0.74])
    assert (mean, low, high) == pytest.approx((0.72, *stats.t.interval(0.95, 2, 0.72, 0.02 / np.sqrt(3))), abs=1e-5)
    assert over_seeds([0.7]) == (0.7, None, None)
    assert over_seeds([0.7, np.nan])[1:] == (None, None)


def test_resamples_of_users_are_what_repeating_their_rows_gives() -> None:
    scores, labels, weights, users = drawn(3)
    test = outcomes(labels, weights, users)
    other = np.random.default_rng(1).integers(1, 8, len(scores)) / 8
    resamples = resampled([scores, other], test, samples=3, seed=5)
    generator = np.random.default_rng(5)
    for row in range(4):
        times = np.ones(7, dtype=int) if row == 0 else np.bincount(generator.integers(0, 7, 7), minlength=7)
        # Each draw of a user is a user of its own.
        places = [np.flatnonzero(users == user) for user in range(7) for _ in range(times[user])]
        rows, owners = np.concatenate(places), np.repeat(np.arange(len(places)), [len(place) for place in places])
        repeated = outcomes(labels[rows], weights[rows], owners)
        each = [metrics_of(values[rows], repeated, 5) for values in (scores, other)]
        for place, metric in enumerate(("AUC", "UAUC", "WUAUC", "log loss")):
            assert resamples[row, place] == pytest.approx(np.mean([one[metric] for one in each])), (row, metric)
    same = difference(resamples[:, 0], resamples[:, 0], 7)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert np.isnan(difference(np.array([np.nan, 1.0]), np.zeros(2), 7).value)
    one = difference(np.array([0.5, 0.5, 0.5]), np.zeros(3), 1)
    assert one.value == 0.5
    assert np.isnan(one.low)


def test_metrics_of_every_variant_seed_and_cohort() -> None:
    scores, labels, weights, users = drawn(4)
    test = outcomes(labels, weights, users)
    by_ranker = {("base", 1): scores, ("base", 2): scores[::-1], ("learn", 1): labels * 0.9, ("learn", 2): labels * 0.8}
    metrics = evaluate_rankers(ArrayScores(by_ranker, test), bins=5, samples=30, seed=1)
    places = {(f.dimension, f.cohort) for f in metrics}
    assert places == {("all", "all"), ("item", "cold"), ("item", "long-tail"), ("item", "other"), ("user", "other")}
    # Of each place: six metrics of two seeds and their mean for two variants, and four differences.
    assert len(metrics) == 5 * (2 * 3 * 6 + 4)
    by_place = {(f.variant, f.seed, f.against, f.cohort, f.metric): f for f in metrics}
    cold = users % 3 == 0
    assert by_place["base", 1, None, "cold", "AUC"].value == pytest.approx(
        slow_auc(scores[cold], labels[cold], weights[cold])
    )
    assert by_place["learn", None, None, "cold", "AUC"].value == 1.0
    gap = by_place["learn", None, "base", "all", "AUC"]
    assert gap.value == pytest.approx(1 - by_place["base", None, None, "all", "AUC"].value)
    assert gap.low is not None
    assert 0 < gap.low <= gap.value
    assert gap.p == pytest.approx(2 / 31)
    assert sum(f.size["exposures"] for f in metrics if f.metric == "ECE" and f.dimension == "item") == 6 * len(scores)
    assert gap.size["conversions"] == pytest.approx(weights[labels == 1].sum())
