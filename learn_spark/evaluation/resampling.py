"""Bootstrap over users in one pass over their batches, in memory independent of the number of users."""

from __future__ import annotations

from itertools import accumulate
from math import exp, factorial

import numpy as np

from learn_spark.evaluation.mixing import mixed, seeded

WEIGHTS = 1 << 22  # computed at once
_MOST = 12
_EDGES = [round(65536 * share) for share in accumulate(exp(-1) / factorial(k) for k in range(_MOST))]
# How often a user is drawn, by 16 random bits: Poisson(1), to 1/65536.
_TIMES = np.searchsorted(np.array(_EDGES), np.arange(65536), side="right").astype(np.float64)


class Resamples:
    """Sums [samples, K] and users [samples] of each of many groups of users, under the same resamples of all users.

    A user is drawn Poisson(1) times (Chamandy, Muralidharan, Najmi and Naidu 2012): at these sizes the same as drawing
    with replacement, but each user is drawn independently. The number of times is a function of (user, sample, seed)
    alone, so that cohorts and arms share the resamples, and neither order nor files change an interval.
    """

    def __init__(self, samples: int, seed: int) -> None:
        if samples < 1:
            raise ValueError(f"a bootstrap needs at least one sample, got {samples}")
        self._samples, self._seed = samples, seed
        self._sums: dict[object, np.ndarray] = {}

    def add(self, seeds: np.ndarray, groups: list[tuple[object, np.ndarray, np.ndarray]]) -> None:
        """A batch of users: their ``seeds`` uint64 [n]; groups as (key, rows [m] of the batch, values [m, K])."""
        streams = seeded(seeds, self._seed)
        step = max(1, WEIGHTS // (4 * max(1, len(streams))))
        numbers = np.arange(-(-self._samples // 4), dtype=np.uint64)
        for start in range(0, len(numbers), step):
            bits = mixed(streams, numbers[start : start + step]).view(np.uint16).reshape(-1, len(streams), 4)
            times = _TIMES[bits.transpose(0, 2, 1).reshape(-1, len(streams))]
            first = 4 * start
            times = times[: self._samples - first]
            for key, rows, values in groups:
                totals = self._sums.setdefault(key, np.zeros((self._samples, values.shape[1] + 1)))
                drawn = times[:, rows]
                totals[first : first + len(times), 0] += drawn.sum(axis=1)
                totals[first : first + len(times), 1:] += drawn @ values

    def merge(self, other: Resamples) -> None:
        """Add the sums of other users, drawn with the same samples and seed."""
        if (self._samples, self._seed) != (other._samples, other._seed):
            raise ValueError("resamples of other samples or another seed cannot be added")
        for key, sums in other._sums.items():
            self._sums[key] = self._sums[key] + sums if key in self._sums else sums

    def means(self, key: object) -> np.ndarray:
        """Means [samples, K] over the group's users as drawn; NaN in a sample that drew none."""
        totals = self._sums[key]
        with np.errstate(divide="ignore", invalid="ignore"):
            return totals[:, 1:] / totals[:, :1]


def interval(samples: np.ndarray, alpha: float) -> tuple[float, float] | None:
    """The percentile interval at 1 - ``alpha`` of ``samples`` [samples]; None if one of them is not finite."""
    if not np.isfinite(samples).all():
        return None
    low, high = np.quantile(samples, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)
