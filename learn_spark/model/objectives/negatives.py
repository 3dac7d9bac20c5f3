"""Negatives of the sampled losses: uniform draws, and the log probability of in-batch negatives."""

from __future__ import annotations

import numpy as np


def uniform_negatives(size: int | tuple[int, int], *, n_items: int, generator: np.random.Generator) -> np.ndarray:
    """Item indices of 1..``n_items``, int64, equally likely, with replacement: [M] for a batch, [P, M] for positions.

    Positives are not excluded; the losses leave out a negative that is the position's positive. Raises ValueError for
    n_items below 1.
    """
    if n_items < 1:
        raise ValueError(f"n_items {n_items} must be at least 1")
    return generator.integers(1, n_items + 1, size=size, dtype=np.int64)


def item_log_q(counts: np.ndarray) -> np.ndarray:
    """ln(count / sum of counts) of every item, float32 [n_items + 1]; -inf for items without events.

    ``counts`` [n_items + 1] are each item's events among the training positives, by index; index 0, padding, is
    ignored. These are the q of in-batch negatives (Yi et al., RecSys 2019, estimate the same from a stream). Raises
    ValueError for negative counts and where all counts are 0.
    """
    if counts.ndim != 1 or len(counts) < 2:
        raise ValueError(f"expected counts [n_items + 1], got {counts.shape}")
    events = counts.astype(np.float64)
    events[0] = 0.0
    if events.min() < 0 or events.sum() <= 0:
        raise ValueError(
            f"counts of {len(counts) - 1} items must be at least 0 and not all 0, got a minimum of {events.min():g} "
            f"and a sum of {events.sum():g}"
        )
    with np.errstate(divide="ignore"):
        return (np.log(events) - np.log(events.sum())).astype(np.float32)
