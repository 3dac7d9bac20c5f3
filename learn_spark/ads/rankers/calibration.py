"""Calibration of a trained ranker on later exposures: temperature and bias of its logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from learn_spark.ads.rankers.inputs import Inputs, InputSource, windows

BIN_WIDTH = 0.01  # of a logit
FURTHEST_LOGIT = 30.0
NEWTON_STEPS = 50
SMALLEST_STEP = 1e-10
RIDGE = 1e-9  # of the Hessian, in mean weights
LEAST_SLOPE, MOST_SLOPE = 0.05, 5.0


@dataclass(frozen=True)
class Calibration:
    """A logit z predicts the probability 1 / (1 + exp(-(``slope`` z + ``bias``))); 1 / ``slope`` is the temperature.

    The slope is positive, so that the order of exposures, and every AUC, stays.
    """

    slope: float = 1.0
    bias: float = 0.0

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities of conversion [n] float64 of ``logits`` [n]."""
        calibrated: np.ndarray = special.expit(self.slope * logits.astype(np.float64) + self.bias)
        return calibrated


UNCHANGED = Calibration()


class LogitHistogram:
    """Weighted outcomes by logit, in bins of BIN_WIDTH up to FURTHEST_LOGIT: memory does not grow with exposures.

    A bin counts at its weighted mean logit, so that a loss is off by some 1e-6 nats.
    """

    def __init__(self) -> None:
        self._size = 2 * round(FURTHEST_LOGIT / BIN_WIDTH) + 1
        self._weight, self._logit = np.zeros(self._size), np.zeros(self._size)
        self._converted = np.zeros(2)  # sums over conversions: of weight x logit, of weight

    def add(self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> None:
        """The next exposures [n]."""
        clipped = np.clip(logits.astype(np.float64), -FURTHEST_LOGIT, FURTHEST_LOGIT)
        place = np.rint((clipped + FURTHEST_LOGIT) / BIN_WIDTH).astype(np.int64)
        weights = weights.astype(np.float64)
        self._weight += np.bincount(place, weights, self._size)
        self._logit += np.bincount(place, weights * clipped, self._size)
        converted = weights * (labels > 0)
        self._converted += (converted @ clipped, converted.sum())

    def loss(self, calibration: Calibration) -> float:
        """The weighted log loss in nats; NaN without exposures."""
        weight = float(self._weight.sum())
        return self._sum(np.array([calibration.slope, calibration.bias])) / weight if weight else float("nan")

    def fit(self) -> Calibration:
        """Slope and bias of the least log loss, by Newton's method.

        The slope is kept within LEAST_SLOPE and MOST_SLOPE: logits that do not tell outcomes apart have no best slope
        above 0, and nearly equal ones, as of a network that has hardly been trained, an arbitrary one. UNCHANGED where
        all outcomes are equal.
        """
        if not 0 < self._converted[1] < self._weight.sum():
            return UNCHANGED
        fitted = self._newton(np.array([1.0, 0.0]), np.array([True, True]))
        if not LEAST_SLOPE <= fitted[0] <= MOST_SLOPE:
            nearest = min(max(float(fitted[0]), LEAST_SLOPE), MOST_SLOPE)
            fitted = self._newton(np.array([nearest, 0.0]), np.array([False, True]))
        return Calibration(float(fitted[0]), float(fitted[1]))

    def _newton(self, start: np.ndarray, free: np.ndarray) -> np.ndarray:
        """(slope, bias) of the least log loss; one that is not ``free`` stays as in ``start``."""
        design, weight = self._filled()
        at, least = start, self._sum(start)
        for _ in range(NEWTON_STEPS):
            p = special.expit(design @ at)
            gradient = design.T @ (weight * p) - self._converted
            hessian = (design * (weight * p * (1 - p))[:, None]).T @ design + RIDGE * weight.sum() * np.eye(2)
            step = np.zeros(2)
            step[free] = np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
            while (moved := self._sum(at - step)) > least and np.abs(step).max() > SMALLEST_STEP:
                step = step / 2
            if moved > least or np.abs(step).max() < SMALLEST_STEP:
                break
            at, least = at - step, moved
        return at

    def _sum(self, at: np.ndarray) -> float:
        """The sum of the weighted log losses by (slope, bias)."""
        design, weight = self._filled()
        return float(weight @ np.logaddexp(0, design @ at) - self._converted @ at)

    def _filled(self) -> tuple[np.ndarray, np.ndarray]:
        """([mean logit, 1] [b, 2], weight [b]) of the bins that have some."""
        filled = self._weight > 0
        weight = self._weight[filled]
        return np.stack([self._logit[filled] / weight, np.ones(len(weight))], axis=1), weight


def calibration_on(logits: Callable[[Inputs], np.ndarray], source: InputSource) -> Calibration:
    """The calibration of a ranker, of which ``logits`` gives those of exposures, on the exposures of ``source``."""
    histogram = LogitHistogram()
    for window in windows(source):
        histogram.add(logits(window), window.label, window.weight)
    return histogram.fit()
