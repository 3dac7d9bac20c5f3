"""Bootstrap over users in one pass over their batches, in memory that no number of users changes."""

from __future__ import annotations

from itertools import accumulate
from math import exp, factorial

import numpy as np

from learn_spark.ads.experiments.mixing import mixed, seeded

HELD = 1 << 22  # weights held at once
_MOST = 12
_EDGES = [round(65536 * share) for share in accumulate(exp(-1) / factorial(k) for k in range(_MOST))]
# How often a user is drawn, by 16 random bits: Poisson(1), to 1/65536.
_TIMES = np.searchsorted(np.array(_EDGES), np.arange(65536), side="right").astype(np.float64)


class Resamples:
    """Sums [samples, K] and users [samples] of each of many groups of users, under the same resamples of all users.

    A user is drawn Poisson(1) times (Chamandy, Muralidharan, Najmi and Naidu 2012): at these sizes the same as drawing
    with replacement, and no user need know of another. How often hangs on (user, sample, seed) alone, so that cohorts
    and arms see the same resamples, and neither order nor files change an interval.
    """

    def __init__(self, samples: int, seed: int) -> None:
        if samples < 1:
            raise ValueError(f"a bootstrap needs at least one sample, got {samples}")
        self._samples, self._seed = samples, seed
        self._sums: dict[object, np.ndarray] = {}

    def add(self, seeds: np.ndarray, groups: list[tuple[object, np.ndarray, np.ndarray]]) -> None:
        """A batch of users: their ``seeds`` uint64 [n]; groups as (key, rows [m] of the batch, values [m, K])."""
        own = seeded(seeds, self._seed)
        step = max(1, HELD // (4 * max(1, len(own))))
        numbers = np.arange(-(-self._samples // 4), dtype=np.uint64)
        for start in range(0, len(numbers), step):
            bits = mixed(own, numbers[start : start + step]).view(np.uint16).reshape(-1, len(own), 4)
            times = _TIMES[bits.transpose(0, 2, 1).reshape(-1, len(own))]
            first = 4 * start
            times = times[: self._samples - first]
            for key, rows, values in groups:
                held = self._sums.setdefault(key, np.zeros((self._samples, values.shape[1] + 1)))
                drawn = times[:, rows]
                held[first : first + len(times), 0] += drawn.sum(axis=1)
                held[first : first + len(times), 1:] += drawn @ values

    def means(self, key: object) -> np.ndarray:
        """Means [samples, K] over the group's users as drawn; NaN in a sample that drew none."""
        held = self._sums[key]
        with np.errstate(divide="ignore", invalid="ignore"):
            return held[:, 1:] / held[:, :1]


def interval(found: np.ndarray, alpha: float) -> tuple[float, float] | None:
    """The percentile interval at 1 - ``alpha`` of resampled figures [samples]; None where one of them is no number."""
    if not np.isfinite(found).all():
        return None
    low, high = np.quantile(found, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)
