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
    variances of all four. The lift is NaN where the control's value is not above zero.
    """

    control: np.ndarray
    control_variance: np.ndarray
    treatment: np.ndarray
    treatment_variance: np.ndarray
    difference: np.ndarray
    difference_variance: np.ndarray
    lift: np.ndarray
    lift_variance: np.ndarray

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
    """
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
    return Contrast(
        control=control_value,
        control_variance=_variance(control, treatment, of_control),
        treatment=treatment_value,
        treatment_variance=_variance(control, treatment, of_treatment),
        difference=treatment_value - control_value,
        difference_variance=_variance(control, treatment, difference),
        lift=treatment_value * inverse[..., 0] - 1,
        lift_variance=_variance(control, treatment, lift),
    )


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
    interval has no upper end: the control's value cannot be told from zero.
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

    So it contains 0 exactly where the test of the difference does not reject (Fieller 1954). The upper end is None
    where there is none. A metric that is not negative has no lift below -1.
    """
    t, c = float(contrasted.treatment), float(contrasted.control)
    of_t, of_c = float(contrasted.treatment_variance), float(contrasted.control_variance)
    covariance = (of_t + of_c - float(contrasted.difference_variance)) / 2
    square = critical**2
    # The ratios are those with a r^2 - 2 b r + k <= 0.
    a, b, k = c**2 - square * of_c, c * t - square * covariance, t**2 - square * of_t
    root = math.sqrt(max(b**2 - a * k, 0.0))
    least = -math.inf if t < 0 else 0.0
    low: float = least
    high: float | None = None
    if a > 0:
        low, high = max((b - root) / a, least), (b + root) / a
    elif a < 0 and b**2 > a * k:
        # Two rays: of ratios that are not negative the upper one is left, unless both ends are negative.
        upper, lower = (b - root) / a, (b + root) / a
        low = max(upper, least) if lower < 0 else least
    elif a == 0 and b > 0:
        low = max(k / (2 * b), least)
    return (low - 1 if math.isfinite(low) else None), None if high is None else high - 1
