"""The difference and the lift of two arms, with intervals by the delta method; the user is the unit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from learn_spark.ads.experiments.metrics import Metric
from learn_spark.ads.experiments.moments import Moments


@dataclass(frozen=True)
class Contrast:
    """Two arms in one metric, arrays [...]: both values, their difference and lift (treatment / control - 1), and the
    variances of all four. The lift is NaN where the control's value is not above zero. ``treatment_is_zero``: whether
    the metric is 0 for every user of the treatment.
    """

    control: np.ndarray
    control_variance: np.ndarray
    treatment: np.ndarray
    treatment_variance: np.ndarray
    difference: np.ndarray
    difference_variance: np.ndarray
    lift: np.ndarray
    lift_variance: np.ndarray
    treatment_is_zero: np.ndarray

    def p(self) -> np.ndarray:
        """Two-sided p of no difference, by the normal distribution; 1 where nothing varies and nothing differs."""
        error = np.sqrt(self.difference_variance)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(self.difference == 0, 0.0, np.abs(self.difference) / error)
        return np.asarray(2 * special.ndtr(-z))


def values(
    control: np.ndarray, treatment: np.ndarray, metric: Metric, theta: np.ndarray, share: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """The metric in both arms [...] by their users' means [..., K], adjusted for the pre-period.

    ``theta`` [..., K] is CUPED's (zeros: no adjustment); ``share`` is the control's share of both arms' users. Each arm
    is adjusted to the pre-period mean of both arms together.
    """
    explained = ((treatment - control) * theta).sum(axis=-1)
    return metric.value(control) + (1 - share) * explained, metric.value(treatment) - share * explained


def contrast(control: Moments, treatment: Moments, metric: Metric, theta: np.ndarray) -> Contrast:
    """The delta method (Deng, Knoblich and Lu 2018) for means and for ratios of sums, whose unit is the user.

    ``theta`` [..., K] as in ``values``; it is treated as a constant, which is right to first order.

    An arm in which the metric is 0 for every user, such as one without a conversion, shows no variance; that of no
    difference is the other arm's, by which p and intervals are computed. Nothing of it is adjusted (``theta`` is 0).
    """
    zero = [_is_zero(arm, metric) for arm in (control, treatment)]
    theta = np.where((zero[0] | zero[1])[..., None], 0.0, theta)
    share = control.users / np.maximum(control.users + treatment.users, 1.0)
    control_value, treatment_value = values(control.mean, treatment.mean, metric, theta, share)
    part = share[..., None]
    by_control = metric.gradient(control.mean)
    by_treatment = metric.gradient(treatment.mean)
    # Each arm's mean moves its own value and, through the common pre-period, the other's.
    of_control = (by_control - theta * (1 - part), theta * (1 - part))
    of_treatment = (theta * part, by_treatment - theta * part)
    difference = (theta - by_control, by_treatment - theta)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(control_value > 0, 1.0 / control_value, np.nan)[..., None]
    ratio = treatment_value[..., None] * inverse
    lift = (
        (of_treatment[0] - ratio * of_control[0]) * inverse,
        (of_treatment[1] - ratio * of_control[1]) * inverse,
    )
    control_variance = _variance(control, treatment, of_control)
    treatment_variance = _variance(control, treatment, of_treatment)
    users = np.maximum(control.users, 1.0) / np.maximum(treatment.users, 1.0)
    of_zero_treatment = np.where(zero[1], control_variance * users, 0.0)
    of_zero_control = np.where(zero[0], treatment_variance / users, 0.0)
    return Contrast(
        control=control_value,
        control_variance=control_variance + of_zero_control,
        treatment=treatment_value,
        treatment_variance=treatment_variance + of_zero_treatment,
        difference=treatment_value - control_value,
        difference_variance=_variance(control, treatment, difference) + of_zero_treatment + of_zero_control,
        lift=treatment_value * inverse[..., 0] - 1,
        lift_variance=_variance(control, treatment, lift) + of_zero_treatment * inverse[..., 0] ** 2,
        treatment_is_zero=zero[1],
    )


def _is_zero(arm: Moments, metric: Metric) -> np.ndarray:
    over = metric.columns[0]
    return np.asarray((arm.mean[..., over] == 0) & (arm.comoment[..., over, over] == 0))


def _variance(control: Moments, treatment: Moments, gradients: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    variance = np.zeros(control.users.shape)
    for arm, gradient in zip((control, treatment), gradients, strict=True):
        of_users = np.einsum("...i,...ij,...j->...", gradient, arm.covariance(), gradient)
        variance = variance + of_users / np.maximum(arm.users, 1.0)
    return np.maximum(variance, 0.0)


@dataclass(frozen=True)
class Effect:
    """One contrast as plain numbers: values, difference and lift with their intervals, standard errors and p.

    The lift and its interval are None where the control's value is not above zero. ``lift_high`` is also None where the
    interval has no upper end, because the control's value does not differ from zero at this level; ``lift_low`` is also
    None where a metric that may be negative has no lower end.
    """

    control: float
    treatment: float
    difference: float
    difference_low: float
    difference_high: float
    standard_error: float
    lift: float | None
    lift_low: float | None
    lift_high: float | None
    lift_error: float | None
    p: float


def effect(contrasted: Contrast, alpha: float) -> Effect:
    """A contrast of scalars with two-sided intervals at 1 - ``alpha``."""
    critical = float(special.ndtri(1 - alpha / 2))
    error, lift_error = math.sqrt(float(contrasted.difference_variance)), math.sqrt(float(contrasted.lift_variance))
    difference, lift = float(contrasted.difference), float(contrasted.lift)
    has_lift = math.isfinite(lift) and math.isfinite(lift_error)
    low, high = _fieller(contrasted, critical) if has_lift else (None, None)
    return Effect(
        control=float(contrasted.control),
        treatment=float(contrasted.treatment),
        difference=difference,
        difference_low=difference - critical * error,
        difference_high=difference + critical * error,
        standard_error=error,
        lift=lift if has_lift else None,
        lift_low=low,
        lift_high=high,
        lift_error=lift_error if has_lift else None,
        p=float(contrasted.p()),
    )


def _fieller(contrasted: Contrast, critical: float) -> tuple[float | None, float | None]:
    """The lifts r - 1 whose ratio r the data do not reject, by |treatment - r control| <= critical standard errors.

    So it contains 0 exactly where the test of the difference does not reject (Fieller 1954). Where the ratios that are
    kept have a gap, and 1 is in it, the interval is the side of the estimate; else it spans the gap. An end is None
    where there is none. A metric that is not negative has no lift below -1.

    A treatment in which the metric is 0 for every user has r times the control's variance under the ratio r, as in
    Koopman's score interval of two proportions (1984): the upper ratio is critical^2 V / (control^2 - critical^2 C),
    with the variances V of a treatment like the control, and C of the control. Of N conversions in equal arms it is
    nearly 3.84 / (N - 3.84), where the exact conditional interval of two Poisson rates has 0.025^(-1/N) - 1.
    """
    t, c = float(contrasted.treatment), float(contrasted.control)
    of_t, of_c = float(contrasted.treatment_variance), float(contrasted.control_variance)
    covariance = (of_t + of_c - float(contrasted.difference_variance)) / 2
    square = critical**2
    # The ratios are those with a r^2 - 2 b r + k <= 0.
    a, b, k = c**2 - square * of_c, c * t - square * covariance, t**2 - square * of_t
    if contrasted.treatment_is_zero:
        return -1.0, (square * of_t / a - 1 if a > 0 else None)
    # Its value at 1, in terms of the difference alone: the sign is that of p.
    at_one = float(contrasted.difference) ** 2 - square * float(contrasted.difference_variance)
    root = math.sqrt(max(b**2 - a * k, 0.0))
    least = -math.inf if t < 0 else 0.0
    low: float = least
    high: float = math.inf
    if a > 0:
        low, high = (b - root) / a, (b + root) / a
    elif a < 0 and b**2 > a * k:
        lower, upper = (b + root) / a, (b - root) / a
        if at_one > 0:
            low, high = (upper, math.inf) if t > c else (-math.inf, lower)
        elif lower < least:
            low = upper
    elif a == 0 and b > 0:
        low = k / (2 * b)
    low = max(low, least)
    return (low - 1 if math.isfinite(low) else None), (high - 1 if math.isfinite(high) else None)
