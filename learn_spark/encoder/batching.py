"""Texts of like length together: batches by token budget."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def token_budget_batches(lengths: np.ndarray, budget: int) -> Iterator[np.ndarray]:
    """Positions in batches, longest texts first, so that rows x padded length <= ``budget`` (one row always fits).

    ``lengths`` [n] in tokens. Texts of equal length keep their order.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        rows = max(1, budget // max(1, int(lengths[order[start]])))
        yield order[start : start + rows]
        start += rows
