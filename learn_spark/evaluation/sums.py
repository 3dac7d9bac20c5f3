"""Metrics of a split from sums over its users, which have the same digits whatever parts they were made in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from learn_spark.evaluation.bootstrap import Difference, interval, paired_difference
from learn_spark.evaluation.resampling import Resamples
from learn_spark.evaluation.slices import DIMENSIONS, slices
from learn_spark.model.scoring.metrics import per_user

# Values from 0 to 1 become whole numbers, so that their order of addition changes no digit. Sums of a block are exact
# below 2^63 / 2^48 = 32,768 users; sums of resamples, in floats, below 2^53 / 2^24 = 536 M drawn users.
_UNIT = 1 << 48
_RESAMPLED_UNIT = 1 << 24


@dataclass(frozen=True)
class SliceMetric:
    """One metric of one method on one slice.

    ``value`` is the mean over ``users`` users, ``low`` and ``high`` its bootstrap interval, ``items`` the number of
    distinct target items.
    """

    dimension: str
    slice: str
    method: str
    metric: str
    value: float
    low: float
    high: float
    users: int
    items: int


@dataclass(frozen=True)
class MetricDifference:
    """One metric of two methods on the users of one slice, which has ``items`` distinct target items.

    ``first`` and ``value`` are the means of the first method and of ``method``.
    """

    dimension: str
    slice: str
    method: str
    metric: str
    first: float
    value: float
    difference: Difference
    items: int


@dataclass
class _Sums:
    """``users`` of a slice, its distinct target ``items`` in order, and sums by (method, metric), in 1 / _UNIT."""

    users: int = 0
    items: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    values: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, users: int, items: np.ndarray, values: Mapping[tuple[str, str], int]) -> None:
        self.users += users
        self.items = np.union1d(self.items, items)
        for name, value in values.items():
            self.values[name] = self.values.get(name, 0) + value

    def mean(self, name: tuple[str, str]) -> Fraction:
        return Fraction(self.values[name], _UNIT * self.users)


class SplitSums:
    """Sums over the users of a split, of every slice: metrics, and metrics under resamples of the users.

    The whole split has all metrics at ``ks``, its parts HR and NDCG at the smallest k. All methods, metrics and slices
    share the resamples (``Resamples``). Memory: 8 bytes a resample and a metric of a slice, and 8 bytes a distinct
    target of a slice.
    """

    def __init__(self, ks: Sequence[int], *, samples: int, seed: int) -> None:
        self._ks = tuple(ks)
        self._slices: dict[tuple[str, str], _Sums] = {}
        self._resamples = Resamples(samples, seed)

    def add(
        self,
        seeds: np.ndarray,
        items: np.ndarray,
        owners: np.ndarray,
        labels: Mapping[str, np.ndarray],
        ranks: Mapping[str, np.ndarray],
    ) -> None:
        """Add a block of B users with ``seeds`` [B] uint64, each added once, and all their T targets.

        Target t is item ``items[t]`` of user ``owners[t]`` (rising), has the rank ``ranks[method][t]`` and lies in the
        slices ``labels[dimension][t]``.
        """
        groups: list[tuple[object, np.ndarray, np.ndarray]] = []
        for part in slices(labels, owners):
            columns = {
                (method, metric): values
                for method, method_ranks in ranks.items()
                for metric, values in per_user(method_ranks[part.mask], self._ks, part.offsets).items()
                if part.dimension == "all" or metric in self._of_parts
            }
            key = (part.dimension, part.name)
            whole = {name: int(np.rint(values * _UNIT).astype(np.int64).sum()) for name, values in columns.items()}
            self._slices.setdefault(key, _Sums()).add(len(part.users), items[part.mask], whole)
            groups.append((key, part.users, np.rint(np.stack(list(columns.values()), axis=1) * _RESAMPLED_UNIT)))
        self._resamples.add(seeds, groups)

    def merge(self, other: SplitSums) -> None:
        """Add the sums of other users of the split."""
        for key, sums in other._slices.items():
            self._slices.setdefault(key, _Sums()).add(sums.users, sums.items, sums.values)
        self._resamples.merge(other._resamples)

    def metrics(self) -> Iterator[SliceMetric]:
        """The metrics of the whole split, then those of every slice with a target."""
        for dimension, name in self._in_order():
            sums = self._slices[dimension, name]
            low, high = self._interval((dimension, name))
            for column, (method, metric) in enumerate(sums.values):
                yield SliceMetric(
                    dimension=dimension,
                    slice=name,
                    method=method,
                    metric=metric,
                    value=float(sums.mean((method, metric))),
                    low=float(low[column]),
                    high=float(high[column]),
                    users=sums.users,
                    items=len(sums.items),
                )

    def differences(self, first: str) -> Iterator[MetricDifference]:
        """``first`` minus each other method in HR and NDCG at the smallest k: the whole split, then its slices."""
        for dimension, name in self._in_order():
            sums = self._slices[dimension, name]
            columns, means = list(sums.values), self._resamples.means((dimension, name)) / _RESAMPLED_UNIT
            for column, (method, metric) in enumerate(columns):
                if method == first or metric not in self._of_parts:
                    continue
                ours, theirs = sums.mean((first, metric)), sums.mean((method, metric))
                resampled = means[:, columns.index((first, metric))] - means[:, column]
                yield MetricDifference(
                    dimension=dimension,
                    slice=name,
                    method=method,
                    metric=metric,
                    first=float(ours),
                    value=float(theirs),
                    difference=paired_difference(float(ours - theirs), resampled, sums.users, unit=1 / _RESAMPLED_UNIT),
                    items=len(sums.items),
                )

    def _interval(self, key: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
        """The ends [M] of intervals of a slice's metrics, rounded outwards; 0 and 1 where no resample has a user."""
        means = self._resamples.means(key)
        means = means[np.isfinite(means[:, 0])]  # of n users, one resample in e^n has none
        if not len(means):
            return np.zeros(means.shape[1]), np.ones(means.shape[1])
        low, high = interval(means)
        return np.clip((low - 0.5) / _RESAMPLED_UNIT, 0, 1), np.clip((high + 0.5) / _RESAMPLED_UNIT, 0, 1)

    @property
    def _of_parts(self) -> tuple[str, str]:
        return f"HR@{min(self._ks)}", f"NDCG@{min(self._ks)}"

    def _in_order(self) -> Iterator[tuple[str, str]]:
        yield "all", "all"
        for dimension in dict.fromkeys(dimension for dimension, _ in self._slices if dimension != "all"):
            names = {name for other, name in self._slices if other == dimension}
            order = DIMENSIONS.get(dimension) or sorted(names)
            yield from ((dimension, name) for name in order if name in names)
