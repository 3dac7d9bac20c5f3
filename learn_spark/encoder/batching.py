"""Batches of texts of similar length by token budget."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def token_budget_batches(lengths: np.ndarray, budget: int, *, packed: bool = False) -> Iterator[np.ndarray]:
    """Positions in batches, longest texts first, each of a cost of at most ``budget`` (a single text always fits).

    A batch costs rows x padded length, or, where ``packed``, the sum of its lengths. ``lengths`` [n] in tokens. Texts
    of equal length keep their order.
    """
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    start = 0
    while start < len(order):
        if packed:
            before = int(ends[start - 1]) if start else 0
            rows = max(1, int(np.searchsorted(ends, before + budget, side="right")) - start)
        else:
            rows = max(1, budget // max(1, int(lengths[order[start]])))
        yield order[start : start + rows]
        start += rows
