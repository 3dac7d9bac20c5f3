"""Item counts on a logarithmic scale of a few knots, for weights that depend on how often an item occurs."""

from __future__ import annotations

import numpy as np

KNOTS = (0, 2, 10, 50, 250)  # events
LIKENESS_SCALE = 10.0  # a temperature of .1


def between_knots(counts: np.ndarray) -> np.ndarray:
    """[N, K] float32: how much of each of KNOTS an item of ``counts`` [N] events has, in the logarithm; rows sum to 1,
    and what is multiplied with them is piecewise linear, and level behind the last knot.
    """
    knots = np.log1p(KNOTS)
    return np.stack([np.interp(np.log1p(counts), knots, own) for own in np.eye(len(KNOTS))], axis=1).astype(np.float32)
