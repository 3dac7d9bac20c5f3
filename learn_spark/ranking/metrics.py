"""Metrics of a ranker: AUC, AUC within users, log loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of (positive, negative) pairs in the right order, ties counted by half; NaN where a class is missing."""
    labels = np.asarray(labels, dtype=bool)
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return float("nan")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[place]
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def user_auc(scores: np.ndarray, labels: np.ndarray, users: Sequence[str]) -> float:
    """UAUC: the mean over users of the AUC within a user. Users with one class only are left out; NaN if all are."""
    _, place = np.unique(np.asarray(users), return_inverse=True)
    order = np.argsort(place, kind="stable")
    borders = np.flatnonzero(np.diff(place[order])) + 1
    values = [auc(scores[rows], labels[rows]) for rows in np.split(order, borders)]
    usable = [value for value in values if not np.isnan(value)]
    return float(np.mean(usable)) if usable else float("nan")


def log_loss(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log likelihood (nats); probabilities are kept 1e-12 away from 0 and 1."""
    clipped = np.clip(scores, 1e-12, 1 - 1e-12)
    return float(-np.mean(np.where(np.asarray(labels, bool), np.log(clipped), np.log1p(-clipped))))
