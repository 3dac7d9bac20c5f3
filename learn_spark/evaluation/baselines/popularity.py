"""The popularity baseline: every user is offered the items with the most training events."""

from __future__ import annotations

import numpy as np

from learn_spark.evaluation.counts import CountScores


def popularity(values: np.ndarray, offsets: np.ndarray, n_items: int) -> CountScores:
    """Scores by training events: user u's items are ``values[offsets[u] : offsets[u + 1]]``, laid end to end.

    Every item is a context, and makes no difference. Raises ValueError for positions outside 0..n_items-1 and offsets
    that do not cover the values.
    """
    check_histories(values, offsets, n_items)
    nothing = np.zeros(0, np.int64)
    return CountScores(
        np.bincount(values, minlength=n_items).astype(np.int64), np.zeros(n_items + 1, np.int64), nothing, nothing
    )


def check_histories(values: np.ndarray, offsets: np.ndarray, n_items: int) -> None:
    """ValueError unless ``offsets`` [B + 1] rise from 0 to the end of ``values`` and all positions are in range."""
    if n_items < 1:
        raise ValueError(f"n_items {n_items} must be at least 1")
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"expected a flat array of integer positions, got {values.dtype} {values.shape}")
    if offsets.ndim != 1 or len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(values):
        raise ValueError(f"offsets must go from 0 to {len(values)}, got {offsets[:1]} to {offsets[-1:]}")
    if (np.diff(offsets) < 0).any():
        raise ValueError(f"offsets must not fall; {int((np.diff(offsets) < 0).sum())} of {len(offsets)} do")
    if len(values) and (values.min() < 0 or values.max() >= n_items):
        raise ValueError(f"positions {values.min()}..{values.max()} are outside 0..{n_items - 1}")
