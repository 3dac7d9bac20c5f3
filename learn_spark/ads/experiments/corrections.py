"""p-values corrected for how many comparisons are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Correction = Literal["holm", "bonferroni", "benjamini-hochberg", "none"]


def corrected(p: Sequence[float], how: Correction) -> list[float]:
    """Adjusted p in the order of ``p``, which is one family: a difference is significant at alpha if it is below alpha.

    ``holm`` (1979) and ``bonferroni`` bound the chance of any false positive by alpha, ``benjamini-hochberg`` (1995)
    the expected share of false ones among the positives. Raises ValueError for a number outside [0, 1].

    >>> corrected([0.01, 0.04, 0.5], "holm")
    [0.03, 0.08, 0.5]
    """
    raw = np.asarray(p, np.float64)
    if not ((raw >= 0) & (raw <= 1)).all():
        raise ValueError(f"p-values lie between 0 and 1, got {list(p)}")
    if how == "none" or len(raw) == 0:
        return raw.tolist()
    if how == "bonferroni":
        return np.minimum(1.0, len(raw) * raw).tolist()
    if how == "holm":
        return _holm(raw).tolist()
    from scipy.stats import false_discovery_control

    return false_discovery_control(raw, method="bh").tolist()


def _holm(raw: np.ndarray) -> np.ndarray:
    order = np.argsort(raw, kind="stable")
    steps = np.maximum.accumulate((len(raw) - np.arange(len(raw))) * raw[order])
    adjusted = np.empty(len(raw))
    adjusted[order] = np.minimum(1.0, steps)
    return adjusted
