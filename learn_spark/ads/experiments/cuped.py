"""Variance reduction by what users did before the experiment (CUPED: Deng, Xu, Kohavi and Walker 2013)."""

from __future__ import annotations

import numpy as np

from learn_spark.ads.experiments.metrics import Metric
from learn_spark.ads.experiments.moments import Moments


def coefficients(control: Moments, treatment: Moments, metric: Metric) -> np.ndarray:
    """The theta [..., K] for which the difference of the arms, each less theta' (its pre-period mean), varies least.

    It is zero except at the metric's sums before the experiment, and zero there too if those do not vary. A
    ratio is taken by its linearisation, as the delta method does.
    """
    at = list(metric.covariates)
    inner = np.zeros((*control.mean.shape[:-1], len(at), len(at)))
    outer = np.zeros((*control.mean.shape[:-1], len(at)))
    for arm in (control, treatment):
        covariance = arm.covariance() / np.maximum(arm.users, 1.0)[..., None, None]
        inner += covariance[..., at, :][..., at]
        outer += (covariance[..., at, :] @ metric.gradient(arm.mean)[..., None])[..., 0]
    scale = np.sqrt(np.diagonal(inner, axis1=-2, axis2=-1))
    scale = np.where(scale > 0, scale, 1.0)
    # Scaled first, so that near-collinearity is judged by correlations and not by units.
    scaled = inner / scale[..., :, None] / scale[..., None, :]
    usable = np.isfinite(outer).all(axis=-1)
    solved = np.linalg.pinv(scaled, rcond=1e-9, hermitian=True) @ np.nan_to_num(outer / scale)[..., None]
    theta = np.zeros_like(control.mean)
    theta[..., at] = np.where(usable[..., None], solved[..., 0] / scale, 0.0)
    return theta
