"""p-values corrected for how many comparisons are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Correction = Literal["holm", "bonferroni", "benjamini-hochberg", "none"]


def corrected(p: Sequence[float], how: Correction) -> list[float]:
    """Adjusted p in the order of ``p``, one family: below alpha means found at alpha.

    ``holm`` (1979) and ``bonferroni`` bound the chance of any false finding by alpha, ``benjamini-hochberg`` (1995) the
    expected share of false ones among the findings. Raises ValueError for what is no probability.
    """
    found = np.asarray(p, np.float64)
    if not ((found >= 0) & (found <= 1)).all():
        raise ValueError(f"p-values lie between 0 and 1, got {list(p)}")
    count = len(found)
    if how == "none" or count == 0:
        return found.tolist()
    if how == "bonferroni":
        return np.minimum(1.0, count * found).tolist()
    order = np.argsort(found, kind="stable")
    if how == "holm":
        steps = np.maximum.accumulate((count - np.arange(count)) * found[order])
    else:
        steps = np.minimum.accumulate(count / np.arange(count, 0, -1) * found[order][::-1])[::-1]
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(1.0, steps)
    return adjusted.tolist()
