"""Temperature and bias by hand, a rate that drifts, and when training stops."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy import optimize, special

from learn_spark.ads.rankers.calibration import UNCHANGED, Calibration, LogitHistogram, calibration_on
from learn_spark.ads.rankers.fit import best_check, logits_of, shape_of, train_network
from learn_spark.ads.rankers.inputs import Inputs
from learn_spark.ads.rankers.metrics import auc, calibration, log_loss
from learn_spark.ads.rankers.trees import train_trees, tree_logits
from tests.ads.rankers.rankings import inputs, ranking


def histogram_of(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> LogitHistogram:
    histogram = LogitHistogram()
    for start in range(0, len(logits), 700):
        at = slice(start, start + 700)
        histogram.add(logits[at], labels[at], weights[at])
    return histogram


def test_slope_and_bias_are_those_of_the_least_log_loss() -> None:
    chance = np.random.default_rng(0)
    logits = chance.normal(-2, 2, 4000)
    labels = chance.random(4000) < special.expit(0.6 * logits + 1.1)
    weights = np.where(labels, 1.0, chance.choice([2.0, 5.0], 4000))

    def loss(at: np.ndarray) -> float:
        return log_loss(special.expit(at[0] * logits + at[1]), labels, weights)

    best = optimize.minimize(loss, [1.0, 0.0])
    histogram = histogram_of(logits, labels, weights)
    fitted = histogram.fit()
    assert (fitted.slope, fitted.bias) == pytest.approx(tuple(best.x), abs=2e-3)
    assert histogram.loss(fitted) == pytest.approx(best.fun, abs=1e-5)
    assert histogram.loss(UNCHANGED) == pytest.approx(loss(np.array([1.0, 0.0])), abs=1e-5)
    # The level is that of the outcomes, exactly.
    assert calibration(fitted.probabilities(logits), labels, weights) == pytest.approx(1, abs=1e-4)


def test_offsets_of_cohorts_are_those_of_the_least_penalized_loss_and_survive_json() -> None:
    chance = np.random.default_rng(3)
    rows, thresholds = 6000, ((1, 20), (1, 20))
    counts = np.zeros((rows, 6), np.float32)
    counts[:, 4] = chance.choice([0, 1, 19, 20, 500], rows)
    counts[:, 5] = np.where(np.arange(rows) < 3, 0, 50)  # three exposures of new users
    item = np.searchsorted([1, 20], counts[:, 4], side="right")
    logits = chance.normal(-1, 1, rows)
    labels = chance.random(rows) < special.expit(0.8 * logits + np.array([-1.0, 0.5, 0.0])[item])
    labels[:3] = True
    weights = np.where(labels, 1.0, 3.0)
    histogram = LogitHistogram(thresholds)
    for at in (slice(0, 1000), slice(1000, rows)):
        histogram.add(logits[at], labels[at], weights[at], counts[at])
    fitted = histogram.fit()

    def penalized(at: np.ndarray) -> float:
        by_item, by_user = at[2:5], at[5:8]
        z = at[0] * logits + at[1] + by_item[item] + by_user[np.where(np.arange(rows) < 3, 0, 2)]
        losses = weights @ (np.logaddexp(0, z) - labels * z)
        return float(losses + 2 * weights.mean() * (at[2:] ** 2).sum() / 2)

    best = optimize.minimize(penalized, [1.0] + [0.0] * 7, tol=1e-9)
    found = [fitted.slope, fitted.bias, *fitted.offsets[0], *fitted.offsets[1]]
    assert found == pytest.approx(list(best.x), abs=5e-3)
    p = fitted.probabilities(logits, counts)
    for cohort in range(3):
        assert calibration(p[item == cohort], labels[item == cohort], weights[item == cohort]) == pytest.approx(
            1, abs=0.05
        )
    # Three outcomes are little evidence, and a cohort without any has no offset.
    assert 0 < fitted.offsets[1][0] < 1
    assert fitted.offsets[1][1] == 0
    again = Calibration.of_dict(json.loads(json.dumps(asdict(fitted))))
    assert again == fitted
    assert np.array_equal(again.probabilities(logits, counts), p)
    with pytest.raises(ValueError, match="counts"):
        fitted.probabilities(logits)


def test_logits_that_do_not_tell_outcomes_apart_get_a_bias_and_one_class_nothing() -> None:
    logits, weights = np.linspace(-1, 1, 200), np.ones(200)
    backwards = histogram_of(logits, logits < 0, weights).fit()
    assert backwards.slope == 0.05
    assert backwards.probabilities(logits).sum() == pytest.approx(100, abs=0.1)
    for labels in (np.zeros(200), np.ones(200)):
        assert histogram_of(logits, labels, weights).fit() == UNCHANGED
    assert LogitHistogram().fit() == UNCHANGED
    # Outcomes that logits part without an error have no best slope, and nearly equal logits one without bounds.
    assert histogram_of(logits, logits > 0, weights).fit().slope == 5
    hardly = histogram_of(logits / 1e4, logits > 0.2, weights)
    assert hardly.fit().slope <= 5
    assert hardly.loss(hardly.fit()) == pytest.approx(-0.4 * np.log(0.4) - 0.6 * np.log(0.6), abs=1e-3)


def drifting() -> tuple[Inputs, Inputs, Inputs]:
    """(train, validation, test): users differ, and from validation on all convert more often, by 1.5 in log odds."""
    chance = np.random.default_rng(5)
    rows = 20_000
    user = chance.integers(0, 30, rows)
    later = np.arange(rows) >= 12_000
    label = chance.random(rows) < special.expit(-3 + 0.1 * user + 1.5 * later)
    every = inputs(np.stack([2 + user, np.full(rows, 2)], axis=1), label)
    edges = ((0, 12_000), (12_000, 15_000), (15_000, rows))
    train, validation, test = (every.take(slice(first, last)) for first, last in edges)
    return train, validation, test


def test_a_rate_that_drifts_is_followed_and_the_order_of_exposures_stays() -> None:
    train, validation, test = drifting()
    settings = ranking(model="mlp")
    network, _ = train_network(shape_of("base", [32, 3], 2, settings), train, validation, settings, 1)
    trees, _ = train_trees("gbdt", train, validation, settings, 1)
    for logits in (lambda x: logits_of(network, x), lambda x: tree_logits(trees, x)):
        fitted = calibration_on(logits, validation)
        raw, calibrated = (each.probabilities(logits(test)) for each in (UNCHANGED, fitted))
        assert abs(calibration(raw, test.label, test.weight) - 1) > 0.15
        assert calibration(calibrated, test.label, test.weight) == pytest.approx(1, abs=0.1)
        # Stopped by the loss as it is, the network would keep the first weights, whose level is high by chance.
        assert auc(calibrated, test.label, test.weight) == auc(raw, test.label, test.weight) > 0.65
        # Also of those that convert rarely, and of those that convert often.
        for rows in (test.rows[:, 0] < 17, test.rows[:, 0] >= 17):
            assert calibration(calibrated[rows], test.label[rows], test.weight[rows]) == pytest.approx(1, abs=0.15)


def test_training_is_checked_by_steps_and_stops_within_an_epoch() -> None:
    train, validation, _ = drifting()
    steps = -(-len(train) // 128)
    for more, expected in (({"validation_steps": 7}, 7), ({}, steps // 10)):
        settings = ranking(model="mlp", epochs=1, patience=100, **more)
        _, checks = train_network(shape_of("base", [32, 3], 2, settings), train, validation, settings, 1)
        assert [check.step for check in checks] == [*range(expected, steps, expected), steps]
    # A network that only gets worse stops after so many checks.
    settings = ranking(model="mlp", learning_rate=1.0, validation_steps=1, patience=3)
    _, checks = train_network(shape_of("base", [32, 3], 2, settings), train, validation, settings, 1)
    assert len(checks) == checks.index(best_check(checks)) + 1 + 3 < steps


def test_without_calibration_stopping_goes_by_the_loss_as_it_is() -> None:
    train, validation, _ = drifting()
    settings = ranking(model="mlp", epochs=1, calibrate=False)
    _, checks = train_network(shape_of("base", [32, 3], 2, settings), train, validation, settings, 1)
    assert all(check.calibrated == check.validation for check in checks)
    assert Calibration() == UNCHANGED
