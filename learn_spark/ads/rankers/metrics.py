"""Metrics of a ranker over weighted exposures: AUC, UAUC, WUAUC, log loss, calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.dataset as ds

from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.workspace import Workspace

METRICS = ("AUC", "UAUC", "WUAUC", "log loss", "calibration", "ECE")
COMPARED = METRICS[:4]  # of which differences between variants are shown
CLIPPED = 1e-12


@dataclass(frozen=True)
class AdMetricRow:
    """One row of ``ad_metrics`` (schemas/ad_metrics.yaml describes the fields)."""

    run_id: str
    variant: str
    model: str
    seed: int | None
    against: str | None
    dimension: str
    cohort: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    p: float | None
    exposures: int
    weight: float
    conversions: float
    users: int
    items: int


def ad_metric_rows(workspace: Workspace, run_id: str) -> list[AdMetricRow]:
    """The rows of ``ad_metrics`` that a run wrote; none where the table does not exist."""
    rows = read_rows(workspace.table("ad_metrics"), where=ds.field("run_id") == run_id)
    return [AdMetricRow(**row) for row in rows]


def grouped_auc(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray, groups: np.ndarray, count: int
) -> np.ndarray:
    """AUC [count] within each group: the share of (positive, negative) pairs in the right order, a pair counting the
    product of its ``weights``, a tie half. NaN where a group lacks a class. Arguments are [n], ``groups`` 0..count-1.
    """
    if not len(scores):
        return np.full(count, np.nan)
    order = np.lexsort((scores, groups))
    scores, positive, weights, groups = scores[order], labels[order] > 0, weights[order], groups[order]
    new = np.append(True, (np.diff(groups) != 0) | (np.diff(scores) != 0))
    tie = np.cumsum(new) - 1
    owner = groups[new]
    won, lost = (np.bincount(tie, np.where(side, weights, 0.0)) for side in (positive, ~positive))
    wins, losses = (np.bincount(owner, each, minlength=count) for each in (won, lost))
    before_group = np.append(0.0, np.cumsum(losses)[:-1])
    below = np.cumsum(lost) - lost - before_group[owner]
    right = np.bincount(owner, won * (below + 0.5 * lost), minlength=count)
    pairs = wins * losses
    return np.divide(right, pairs, out=np.full(count, np.nan), where=pairs > 0)


class ResampledAuc:
    """The AUC of the same scores under many resamples of ``users``; the scores are sorted once."""

    def __init__(self, scores: np.ndarray, labels: np.ndarray, weights: np.ndarray, users: np.ndarray) -> None:
        order = np.argsort(scores, kind="stable")
        self._users, self._weights = users[order], weights[order]
        self._positive = (labels[order] > 0).astype(np.float64)
        self._ties = np.flatnonzero(np.append(True, np.diff(scores[order]) != 0))

    def at(self, times: np.ndarray) -> float:
        """The AUC where user u counts ``times[u]`` times; NaN without both classes."""
        weights = self._weights * times[self._users]
        won = weights * self._positive
        lost = weights - won
        if len(self._ties) < len(weights):
            won, lost = np.add.reduceat(won, self._ties), np.add.reduceat(lost, self._ties)
        pairs = won.sum() * lost.sum()
        return float(won @ (np.cumsum(lost) - 0.5 * lost) / pairs) if pairs else float("nan")


def auc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """AUC over all exposures [n], weighted as in ``grouped_auc``.

    >>> auc(np.array([0.8, 0.2, 0.5]), np.array([1, 1, 0]), np.array([2.0, 2.0, 1.0]))
    0.5
    """
    return float(grouped_auc(scores, labels, weights, np.zeros(len(scores), dtype=np.int64), 1)[0])


def user_auc(aucs: np.ndarray, exposures: np.ndarray | None = None) -> float:
    """UAUC: the mean of ``aucs`` [users]; WUAUC: weighted by each user's ``exposures`` [users] (sum of weights).

    A user whose exposures are of one class has no AUC (NaN) and is left out; NaN if no user has one.

    >>> user_auc(np.array([1.0, 0.5, np.nan])), user_auc(np.array([1.0, 0.5, np.nan]), np.array([3.0, 1.0, 9.0]))
    (0.75, 0.875)
    """
    has_auc = np.isfinite(aucs)
    if not has_auc.any():
        return float("nan")
    return float(np.average(aucs[has_auc], weights=None if exposures is None else exposures[has_auc]))


def log_losses(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Negative log likelihood [n] in nats of each exposure; probabilities are kept 1e-12 away from 0 and 1."""
    clipped = np.clip(scores, CLIPPED, 1 - CLIPPED)
    return -np.where(labels > 0, np.log(clipped), np.log1p(-clipped))


def log_loss(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """Weighted mean of ``log_losses``; NaN without exposures."""
    return float(np.average(log_losses(scores, labels), weights=weights)) if len(scores) else float("nan")


def calibration(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """Predicted over observed conversions, both weighted; above 1 too many are predicted. NaN without a conversion.

    >>> round(calibration(np.array([0.1, 0.1]), np.array([1, 0]), np.array([1.0, 9.0])), 12)
    1.0
    """
    observed = float(weights @ (labels > 0))
    return float(weights @ scores) / observed if observed else float("nan")


def calibration_error(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray, bins: int) -> float:
    """ECE (Naeini et al., AAAI 2015): the mean over bins of |predicted - observed| rate, each by its share of weight.

    Bins hold equal shares of weight in the order of the scores, as conversions are rare and most scores small; equal
    scores are in one bin. NaN without exposures.
    """
    if not len(scores):
        return float("nan")
    order = np.argsort(scores, kind="stable")
    scores, labels, weights = scores[order], labels[order] > 0, weights[order]
    below = np.cumsum(weights) - weights
    first = np.searchsorted(scores, scores, side="left")  # ties lie where their first does
    place = np.minimum((below[first] / weights.sum() * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(place, weights * (scores - labels), minlength=bins)
    return float(np.abs(gaps).sum() / weights.sum())
