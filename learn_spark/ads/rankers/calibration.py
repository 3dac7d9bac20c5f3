"""Calibration of a trained ranker on later exposures: temperature of its logits, and levels by cohort."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from learn_spark.ads.inputs.counts import COUNTS, EVENTS
from learn_spark.ads.rankers.inputs import Inputs, InputSource, windows

BIN_WIDTH = 0.01  # of a logit
FURTHEST_LOGIT = 30.0
NEWTON_STEPS = 50
SMALLEST_STEP = 1e-10
RIDGE = 1e-9  # of the Hessian, in mean weights
OFFSET_RIDGE = 2.0  # of offsets, per mean weight of an exposure: those of few outcomes stay near 0
LEAST_SLOPE, MOST_SLOPE = 0.05, 5.0

Thresholds = tuple[tuple[int, ...], ...]  # of an item's events, and of a user's


@dataclass(frozen=True)
class Calibration:
    """A logit z predicts the probability 1 / (1 + exp(-(``slope`` z + ``bias`` + offsets))); 1 / ``slope`` is the
    temperature.

    ``offsets``: of the item's cohort, and of the user's, one each for (cold, long-tail, other) by their events before
    the release and ``thresholds``; both are empty where levels do not depend on cohorts. The slope is positive, so
    that the order of exposures of the same cohorts stays.
    """

    slope: float = 1.0
    bias: float = 0.0
    offsets: tuple[tuple[float, ...], ...] = ()
    thresholds: Thresholds = ()

    @staticmethod
    def of_dict(saved: Mapping[str, Any]) -> Calibration:
        """The inverse of ``asdict``, after a round trip through JSON."""
        offsets, thresholds = (tuple(map(tuple, saved[name])) for name in ("offsets", "thresholds"))
        return Calibration(saved["slope"], saved["bias"], offsets, thresholds)

    def probabilities(self, logits: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
        """Probabilities of conversion [n] float64 of ``logits`` [n]; ``counts`` [n, 6] (COUNTS) are read for offsets.

        Raises ValueError if there are offsets and no counts.
        """
        calibrated: np.ndarray = self.slope * logits.astype(np.float64) + self.bias
        if self.offsets:
            if counts is None:
                raise ValueError("a calibration with offsets by cohort needs the counts of the exposures")
            cohorts = cohorts_of(counts, self.thresholds)
            for number, offsets in enumerate(self.offsets):
                calibrated = calibrated + np.asarray(offsets)[cohorts[:, number]]
        probabilities: np.ndarray = special.expit(calibrated)
        return probabilities


UNCHANGED = Calibration()


def cohorts_of(counts: np.ndarray, thresholds: Thresholds) -> np.ndarray:
    """The cohorts [n, 2] of item and user by ``counts`` [n, 6] (COUNTS): how many thresholds their events reach."""
    events = [counts[:, COUNTS.index(name)] for name in EVENTS]
    return np.stack([np.searchsorted(each, of, side="right") for each, of in zip(thresholds, events, strict=True)], 1)


class LogitHistogram:
    """Weighted outcomes by logit, and by cohort with ``thresholds``, in bins of BIN_WIDTH up to FURTHEST_LOGIT: memory
    does not grow with exposures.

    A bin counts at its weighted mean logit, so that a loss is off by some 1e-6 nats.
    """

    def __init__(self, thresholds: Thresholds = ()) -> None:
        self.thresholds = thresholds
        self._bins = 2 * round(FURTHEST_LOGIT / BIN_WIDTH) + 1
        self._cohorts = [len(each) + 1 for each in thresholds]
        self._size = self._bins * int(np.prod(self._cohorts))
        self._weight, self._logit, self._converted = (np.zeros(self._size) for _ in range(3))
        self._converted_logit = 0.0  # the sum over conversions of weight x logit
        self._rows = 0

    def add(
        self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray, counts: np.ndarray | None = None
    ) -> None:
        """The next exposures [n]; ``counts`` [n, 6] (COUNTS) where there are thresholds."""
        clipped = np.clip(logits.astype(np.float64), -FURTHEST_LOGIT, FURTHEST_LOGIT)
        place = np.rint((clipped + FURTHEST_LOGIT) / BIN_WIDTH).astype(np.int64)
        if self.thresholds:
            assert counts is not None
            cohorts = cohorts_of(counts, self.thresholds)
            place += self._bins * np.ravel_multi_index(tuple(cohorts.T), self._cohorts)
        weights = weights.astype(np.float64)
        self._weight += np.bincount(place, weights, self._size)
        self._logit += np.bincount(place, weights * clipped, self._size)
        converted = weights * (labels > 0)
        self._converted += np.bincount(place, converted, self._size)
        self._converted_logit += float(converted @ clipped)
        self._rows += len(logits)

    def loss(self, calibration: Calibration) -> float:
        """The weighted log loss in nats; NaN without exposures."""
        weight = float(self._weight.sum())
        at = np.array([calibration.slope, calibration.bias, *(x for each in calibration.offsets for x in each)])
        if len(at) < self._parameters:
            at = np.concatenate([at, np.zeros(self._parameters - len(at))])
        return _Outcomes(self).loss(at) / weight if weight else float("nan")

    def fit(self) -> Calibration:
        """Slope, bias and offsets of the least log loss, by Newton's method.

        Offsets have a normal prior around 0 whose variance is 1 / OFFSET_RIDGE (about .7 in log odds). The slope is
        kept within LEAST_SLOPE and MOST_SLOPE: logits that do not tell outcomes apart have no best slope above 0, and
        nearly equal ones, as of a network that has hardly been trained, an arbitrary one. UNCHANGED where all outcomes
        are equal.
        """
        if not 0 < self._converted.sum() < self._weight.sum():
            return UNCHANGED
        outcomes = _Outcomes(self)
        start = np.zeros(self._parameters)
        start[0] = 1.0
        fitted = outcomes.least(start, np.ones(len(start), dtype=bool))
        if not LEAST_SLOPE <= fitted[0] <= MOST_SLOPE:
            start[0] = min(max(float(fitted[0]), LEAST_SLOPE), MOST_SLOPE)
            fitted = outcomes.least(start, np.arange(len(start)) > 0)
        split = np.split(fitted[2:], np.cumsum(self._cohorts)[:-1]) if self._cohorts else []
        offsets = tuple(tuple(map(float, each)) for each in split)
        return Calibration(float(fitted[0]), float(fitted[1]), offsets, self.thresholds)

    @property
    def _parameters(self) -> int:
        return 2 + sum(self._cohorts)


class _Outcomes:
    """The filled bins of a histogram: ``design`` [b, p] (mean logit, 1, which cohorts) and ``weight`` [b];
    ``converted`` [p], the weighted sum of the design over conversions; and the penalty of each parameter [p].
    """

    def __init__(self, histogram: LogitHistogram) -> None:
        filled = np.flatnonzero(histogram._weight > 0)
        self.weight = histogram._weight[filled]
        columns = [histogram._logit[filled] / self.weight, np.ones(len(filled))]
        if histogram._cohorts:
            cohorts = np.unravel_index(filled // histogram._bins, histogram._cohorts)
            columns += [of == n for of, size in zip(cohorts, histogram._cohorts, strict=True) for n in range(size)]
        self.design = np.stack(columns, axis=1).astype(np.float64)
        self.converted = self.design.T @ histogram._converted[filled]
        self.converted[0] = histogram._converted_logit  # a bin's mean logit is not quite that of its conversions
        mean_weight = self.weight.sum() / max(1, histogram._rows)
        self.penalty = np.zeros(len(columns))
        self.penalty[2:] = OFFSET_RIDGE * mean_weight
        self.ridge = np.full(len(columns), RIDGE * self.weight.sum())  # of steps alone, not of the loss

    def loss(self, at: np.ndarray) -> float:
        """The sum of the weighted log losses."""
        return float(self.weight @ np.logaddexp(0, self.design @ at) - self.converted @ at)

    def least(self, start: np.ndarray, free: np.ndarray) -> np.ndarray:
        """The parameters of the least penalized loss, by Newton's method; those not ``free`` stay as in ``start``."""
        at, lowest = start, self._penalized(start)
        for _ in range(NEWTON_STEPS):
            p = special.expit(self.design @ at)
            gradient = self.design.T @ (self.weight * p) - self.converted + self.penalty * at
            hessian = (self.design * (self.weight * p * (1 - p))[:, None]).T @ self.design
            hessian += np.diag(self.penalty + self.ridge)
            step = np.zeros(len(start))
            step[free] = np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
            while (moved := self._penalized(at - step)) > lowest and np.abs(step).max() > SMALLEST_STEP:
                step = step / 2
            if moved > lowest or np.abs(step).max() < SMALLEST_STEP:
                break
            at, lowest = at - step, moved
        return at

    def _penalized(self, at: np.ndarray) -> float:
        return self.loss(at) + float(self.penalty @ at**2) / 2


def calibration_on(
    logits: Callable[[Inputs], np.ndarray], source: InputSource, thresholds: Thresholds = ()
) -> Calibration:
    """The calibration of a ranker, of which ``logits`` gives those of exposures, on the exposures of ``source``; with
    ``thresholds`` with offsets by cohort.
    """
    histogram = LogitHistogram(thresholds)
    for window in windows(source):
        histogram.add(logits(window), window.label, window.weight, window.counts)
    return histogram.fit()
