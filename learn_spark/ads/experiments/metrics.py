"""The metrics of an experiment: ratios of users' sums, each to the number of users or to another sum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from learn_spark.ads.experiments.moments import SUMS


@dataclass(frozen=True)
class Metric:
    """The sum ``over`` of an arm's users, divided by the users, or by the sum ``per`` (a ratio of two random sums)."""

    name: str
    label: str
    over: str
    per: str | None = None

    @property
    def columns(self) -> tuple[int, ...]:
        """Places of its sums in the experiment's period."""
        return tuple(SUMS.index(name) for name in (self.over, self.per) if name is not None)

    @property
    def covariates(self) -> tuple[int, ...]:
        """Places of the same sums before the experiment."""
        return tuple(len(SUMS) + column for column in self.columns)

    def value(self, mean: np.ndarray) -> np.ndarray:
        """The metric [...] of an arm by its users' ``mean`` [..., K]; NaN where the denominator is 0."""
        over, *per = self.columns
        if not per:
            return mean[..., over]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(mean[..., per[0]] > 0, mean[..., over] / mean[..., per[0]], np.nan)

    def gradient(self, mean: np.ndarray) -> np.ndarray:
        """The derivative of ``value`` by ``mean``, [..., K]."""
        gradient = np.zeros_like(mean)
        over, *per = self.columns
        if not per:
            gradient[..., over] = 1.0
            return gradient
        with np.errstate(divide="ignore", invalid="ignore"):
            denominator = mean[..., per[0]]
            gradient[..., over] = 1.0 / denominator
            gradient[..., per[0]] = -mean[..., over] / denominator**2
        return gradient


METRICS = {
    metric.name: metric
    for metric in (
        Metric("revenue_per_user", "Revenue per user", "revenue"),
        Metric("conversions_per_user", "Conversions per user", "conversions"),
        Metric("converting_users", "Share of users who convert", "converters"),
        Metric("conversion_rate", "Conversion rate per exposure", "conversions", "exposures"),
        Metric("revenue_per_exposure", "Revenue per exposure", "revenue", "exposures"),
        Metric("exposures_per_user", "Exposures per user", "exposures"),
    )
}
