"""Bootstrap over users: intervals of means, and paired differences (Efron and Tibshirani 1993, chapters 13 and 16)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
BLOCK_DRAWS = 1 << 22  # draws in memory at once


def resampled_means(values: np.ndarray, *, samples: int, seed: int) -> np.ndarray:
    """Means [samples, M] of ``values`` [n, M] over n rows drawn with replacement.

    A draw takes whole rows, so that columns stay paired, also those of two calls with the same n and seed. Raises
    ValueError for no rows and samples < 1.
    """
    if samples < 1 or values.ndim != 2 or not len(values):
        raise ValueError(f"a bootstrap needs samples (got {samples}) of values [n >= 1, M] (got {values.shape})")
    rows = len(values)
    generator = np.random.default_rng(seed)
    step = max(1, BLOCK_DRAWS // rows)
    means = np.empty((samples, values.shape[1]))
    for start in range(0, samples, step):
        size = min(step, samples - start)
        drawn = generator.integers(0, rows, size=(size, rows)) + rows * np.arange(size)[:, None]
        times = np.bincount(drawn.reshape(-1), minlength=size * rows).reshape(size, rows)  # [size, n]
        means[start : start + size] = times.astype(np.float64) @ values / rows
    return means


def interval(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The percentile interval at LEVEL: lower and upper ends [M] of resampled means [samples, M]."""
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


def paired_differences(first: np.ndarray, second: np.ndarray, *, samples: int, seed: int) -> list[Difference]:
    """Differences ``first`` - ``second`` of M values of the same users, [n, M]; all M share the resamples of users.

    p is twice the smaller share of resampled differences on either side of zero (zero counts on both), at least 2 /
    (samples + 1). Raises ValueError where the shapes differ, and as ``resampled_means``.
    """
    if first.shape != second.shape:
        raise ValueError(f"a paired difference needs two values per user, got {first.shape} and {second.shape}")
    by_user = first - second
    means = resampled_means(by_user, samples=samples, seed=seed)
    low, high = interval(means)
    beyond = np.minimum((means <= 0).sum(axis=0), (means >= 0).sum(axis=0))
    p = np.minimum(1.0, 2 * (1 + beyond) / (1 + samples))
    columns = np.stack([by_user.mean(axis=0), low, high, p], axis=1).tolist()
    return [Difference(value, least, most, chance, len(first)) for value, least, most, chance in columns]
