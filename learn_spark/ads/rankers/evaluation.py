"""Evaluating rankers on test exposures: metrics overall and by cohort, over seeds, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import special

from learn_spark.ads.cohorts import COHORTS
from learn_spark.ads.rankers.metrics import (
    COMPARED,
    ResampledAuc,
    auc,
    calibration,
    calibration_error,
    grouped_auc,
    log_loss,
    log_losses,
    user_auc,
)
from learn_spark.ads.rankers.request_metrics import RequestMetrics
from learn_spark.evaluation.bootstrap import Difference, interval

WHOLE = "all"
# Pairs whose difference is the effect of the features: on the network, and on the trees.
CONTRASTS = (("learn", "base"), ("learn-adaptor", "base"), ("gbdt-learn", "gbdt"))


@dataclass(frozen=True)
class Outcomes:
    """The test exposures [n]: label, weight, codes of users and items; for each kind of cohort the place in COHORTS;
    codes of requests (NO_REQUEST: none), or None where no exposure has one.
    """

    label: np.ndarray
    weight: np.ndarray
    user: np.ndarray
    item: np.ndarray
    cohorts: Mapping[str, np.ndarray]
    request: np.ndarray | None = None

    def masks(self) -> Iterator[tuple[str, str, np.ndarray]]:
        """(dimension, cohort, which exposures [n] bool): the whole, then every cohort that has some."""
        yield WHOLE, WHOLE, np.ones(len(self.label), dtype=bool)
        for kind, places in self.cohorts.items():
            for place, name in enumerate(COHORTS):
                if (mask := places == place).any():
                    yield kind, name, mask

    def take(self, mask: np.ndarray) -> Outcomes:
        """The exposures in ``mask`` [n] bool."""
        cohorts = {kind: places[mask] for kind, places in self.cohorts.items()}
        request = None if self.request is None else self.request[mask]
        return Outcomes(self.label[mask], self.weight[mask], self.user[mask], self.item[mask], cohorts, request)

    def size(self) -> dict[str, float]:
        """Numbers of exposures (rows, and their sum of weights), conversions, users and items."""
        return {
            "exposures": len(self.label),
            "weight": float(self.weight.sum()),
            "conversions": float(self.weight @ (self.label > 0)),
            "users": len(np.unique(self.user)),
            "items": len(np.unique(self.item)),
        }


@dataclass(frozen=True)
class MetricValue:
    """A metric of a variant on a cohort: of one ``seed``, or the mean over seeds (None) with its t interval.

    With ``against`` the value is the difference to that variant, and its interval is the bootstrap's over users. NaN:
    not defined, as an AUC without both classes; None, or NaN: no interval.
    """

    variant: str
    seed: int | None
    against: str | None
    dimension: str
    cohort: str
    metric: str
    value: float
    low: float | None
    high: float | None
    p: float | None
    size: Mapping[str, float]


class ScoreSource(Protocol):
    """The scores of rankers on test exposures, in memory (``ArrayScores``) or in files (``streamed``)."""

    @property
    def names(self) -> Sequence[tuple[str, int]]:
        """Variant and seed of each ranker."""
        ...

    def cohorts(self) -> Iterator[tuple[str, str, ScoreSource]]:
        """(dimension, cohort, its exposures): the whole, then every cohort that has some."""
        ...

    def size(self) -> Mapping[str, float]:
        """``Outcomes.size``."""
        ...

    def metrics(self, name: tuple[str, int], bins: int) -> dict[str, float]:
        """Each of METRICS of one ranker, and of REQUEST_METRICS where there are requests."""
        ...

    def resampled(self, variant: str, samples: int, seed: int) -> np.ndarray:
        """COMPARED metrics [1 + samples, 4] of a variant; see ``resampled``."""
        ...


@dataclass(frozen=True)
class ArrayScores:
    """``scores`` [n] by (variant, seed) of the exposures ``test`` [n]."""

    scores: Mapping[tuple[str, int], np.ndarray]
    test: Outcomes

    @property
    def names(self) -> Sequence[tuple[str, int]]:
        """Variant and seed of each ranker."""
        return list(self.scores)

    def cohorts(self) -> Iterator[tuple[str, str, ArrayScores]]:
        """(dimension, cohort, its exposures): the whole, then every cohort that has some."""
        for dimension, cohort, mask in self.test.masks():
            scores = {name: values[mask] for name, values in self.scores.items()}
            yield dimension, cohort, ArrayScores(scores, self.test.take(mask))

    def size(self) -> Mapping[str, float]:
        """``Outcomes.size``."""
        return self.test.size()

    def metrics(self, name: tuple[str, int], bins: int) -> dict[str, float]:
        """``metrics_of`` one ranker."""
        return metrics_of(self.scores[name], self.test, bins)

    def resampled(self, variant: str, samples: int, seed: int) -> np.ndarray:
        """``resampled`` of the seeds of a variant."""
        of_variant = [values for (name, _), values in self.scores.items() if name == variant]
        return resampled(of_variant, self.test, samples=samples, seed=seed)


def evaluate_rankers(source: ScoreSource, *, bins: int, samples: int, seed: int) -> list[MetricValue]:
    """All metrics by (variant, seed): each seed's, means over seeds, and paired differences.

    ``bins`` are those of ECE; ``samples`` bootstrap resamples of users, drawn with ``seed``.
    """
    variants = list(dict.fromkeys(variant for variant, _ in source.names))
    values: list[MetricValue] = []
    for dimension, cohort, part in source.cohorts():
        size = part.size()
        for variant in variants:
            seeds = [seed_ for name, seed_ in source.names if name == variant]
            metrics = {seed_: part.metrics((variant, seed_), bins) for seed_ in seeds}
            for seed_, row in metrics.items():
                values += [
                    MetricValue(variant, seed_, None, dimension, cohort, metric, value, None, None, None, size)
                    for metric, value in row.items()
                ]
            for metric in metrics[seeds[0]]:
                mean, low, high = over_seeds([row[metric] for row in metrics.values()])
                values.append(MetricValue(variant, None, None, dimension, cohort, metric, mean, low, high, None, size))
        pairs = [pair for pair in CONTRASTS if set(pair) <= set(variants)]
        resamples = {
            variant: part.resampled(variant, samples, seed)
            for variant in dict.fromkeys(variant for pair in pairs for variant in pair)
        }
        for first, second in pairs:
            for column, metric in enumerate(COMPARED):
                d = difference(resamples[first][:, column], resamples[second][:, column], int(size["users"]))
                values.append(
                    MetricValue(first, None, second, dimension, cohort, metric, d.value, d.low, d.high, d.p, size)
                )
    return values


def metrics_of(scores: np.ndarray, test: Outcomes, bins: int) -> dict[str, float]:
    """Each of METRICS, and of REQUEST_METRICS where there are requests."""
    aucs, weights = _by_user(scores, test)
    of_requests = RequestMetrics()
    if test.request is not None:
        of_requests.add(scores, test.label, test.request)
    return {
        "AUC": auc(scores, test.label, test.weight),
        "UAUC": user_auc(aucs),
        "WUAUC": user_auc(aucs, weights),
        "log loss": log_loss(scores, test.label, test.weight),
        "calibration": calibration(scores, test.label, test.weight),
        "ECE": calibration_error(scores, test.label, test.weight, bins),
        **of_requests.values(),
    }


def over_seeds(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """(mean, lower and upper end of its 95 % t interval over seeds); no interval for one seed, or if one is NaN."""
    mean = float(np.mean(values))
    if len(values) < 2 or not math.isfinite(mean):
        return mean, None, None
    quantile = float(special.stdtrit(len(values) - 1, 0.975))  # of Student's t
    half_width = quantile * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, mean - half_width, mean + half_width


@dataclass(frozen=True)
class UserFigures:
    """The ``users`` [U] with exposures, ascending; of each the AUC (NaN: one class), weight and weighted log loss."""

    users: np.ndarray
    aucs: np.ndarray
    weights: np.ndarray
    losses: np.ndarray


class UserMeans:
    """COMPARED metrics of a variant by how often each user counts: means over the seeds' ``figures``."""

    def __init__(self, figures: Sequence[UserFigures]) -> None:
        self._weights = figures[0].weights
        self._has_auc = np.isfinite(figures[0].aucs)
        self._auc = np.mean([np.where(self._has_auc, each.aucs, 0.0) for each in figures], axis=0)
        self._loss = np.mean([each.losses for each in figures], axis=0)

    def at(self, times: np.ndarray, auc_of_all: float) -> tuple[float, ...]:
        """The metrics where each user counts ``times`` [U] times; the AUC over all exposures is given."""
        weights, has_auc = self._weights, self._has_auc
        return (
            auc_of_all,
            _ratio(times @ self._auc, times @ has_auc),
            _ratio(times @ (weights * self._auc), times @ (weights * has_auc)),
            _ratio(times @ self._loss, times @ weights),
        )


def resampled(scores: Sequence[np.ndarray], test: Outcomes, *, samples: int, seed: int) -> np.ndarray:
    """COMPARED metrics [1 + samples, 4], means over the seeds' ``scores`` [n].

    Row 0 is of the exposures as they are, the others of the exposures of users drawn with replacement. The same
    ``seed`` and users give the same draws, so that rows of two variants are paired.
    """
    names, users = np.unique(test.user, return_inverse=True)
    generator = np.random.default_rng(seed)
    overall = [ResampledAuc(values, test.label, test.weight, users) for values in scores]
    figures = []
    for values in scores:
        losses = np.bincount(users, test.weight * log_losses(values, test.label), len(names))
        figures.append(UserFigures(names, *_by_user(values, test), losses))
    means = UserMeans(figures)
    rows = np.empty((1 + samples, len(COMPARED)))
    for number in range(1 + samples):
        times = np.ones(len(names))
        if number:
            times = np.bincount(generator.integers(0, len(names), len(names)), minlength=len(names)).astype(np.float64)
        rows[number] = means.at(times, float(np.mean([each.at(times) for each in overall])))
    return rows


def difference(first: np.ndarray, second: np.ndarray, users: int) -> Difference:
    """Of two columns of ``resampled``: first minus second, its percentile interval, two-sided p.

    Resamples in which a metric is not defined are left out. NaN where it is defined in none; a single user has no
    interval.
    """
    differences = first - second
    observed = float(differences[0])
    drawn = differences[1:][np.isfinite(differences[1:])]
    if not math.isfinite(observed) or not len(drawn):
        return Difference(math.nan, math.nan, math.nan, math.nan, users)
    if users < 2:
        return Difference(observed, math.nan, math.nan, math.nan, users)
    low, high = interval(drawn[:, None])
    beyond = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p = min(1.0, 2 * (1 + beyond) / (1 + len(drawn)))
    return Difference(observed, float(low[0]), float(high[0]), p, users)


def _by_user(scores: np.ndarray, test: Outcomes) -> tuple[np.ndarray, np.ndarray]:
    """(AUC within each user, the sum of the weights of the user's exposures), both [users], in the order of codes."""
    names, users = np.unique(test.user, return_inverse=True)
    aucs = grouped_auc(scores, test.label, test.weight, users, len(names))
    return aucs, np.bincount(users, test.weight, len(names))


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below else math.nan
