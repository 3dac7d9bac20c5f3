"""Intervals of means and of paired differences from resamples of users (Efron and Tibshirani 1993, chapters 13, 16)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVEL = 0.95


def interval(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The percentile interval at LEVEL: lower and upper ends of resampled means [samples, M] or [samples]."""
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


@dataclass(frozen=True)
class Difference:
    """A mean difference over ``users``, its interval at LEVEL, and the two-sided p of no difference."""

    value: float
    low: float
    high: float
    p: float
    users: int


def paired_difference(value: float, resampled: np.ndarray, users: int, *, unit: float = 0.0) -> Difference:
    """The difference ``value`` of two means over the same ``users``, from its ``resampled`` values [samples].

    p is twice the smaller share of resampled differences on either side of zero (zero counts on both), at least 2 /
    (samples + 1). ``unit``: how exact resampled values are; the interval is wider by it where they are not all 0. A
    resample that drew no user is NaN and left out; without any other the interval is -1 to 1, and p is 1.
    """
    known = resampled[np.isfinite(resampled)]
    if not len(known):
        return Difference(value, -1.0, 1.0, 1.0, users)
    low, high = interval(known)
    slack = unit if known.any() else 0.0
    beyond = min((known <= 0).sum(), (known >= 0).sum())
    p = min(1.0, 2 * (1 + float(beyond)) / (1 + len(known)))
    return Difference(value, float(low) - slack, float(high) + slack, p, users)
