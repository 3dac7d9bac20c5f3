"""Item counts on a logarithmic scale of a few knots, for weights that depend on how often an item occurs."""

from __future__ import annotations

import numpy as np

KNOTS = (0, 2, 10, 50, 250)  # training events of an item
LEVELS = (0, 1, 5, 20, 100)  # the least training events of the items of each level
LIKENESS_SCALE = 10.0  # a temperature of 0.1
PROFILE_SCALE = 10.0  # what users' profiles are divided by, so that they are about as long as unit vectors


def knot_weights(counts: np.ndarray) -> np.ndarray:
    """Interpolation weights [N, K] float32 of items with ``counts`` [N] events between KNOTS, linear in log(1 + n).

    Rows sum to 1. A product with values at the knots is piecewise linear, and constant beyond the last knot.
    """
    knots = np.log1p(KNOTS)
    return np.stack([np.interp(np.log1p(counts), knots, knot) for knot in np.eye(len(KNOTS))], axis=1).astype(
        np.float32
    )
