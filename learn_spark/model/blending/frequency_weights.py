"""The weights of a tower's score, an item's popularity and its similarities, by the item's number of events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from learn_spark.model.scoring.frequency import KNOTS, knot_weights


@dataclass(frozen=True)
class FrequencyWeights:
    """score(user, item) = a(n) * l + b(n) + LIKENESS_SCALE * (c(n) * s + d(n) * t).

    l is the tower's inner product / temperature, s the cosine of the item's frozen content with the mean content of the
    user's last events, t the same of the items' vectors of co-visits, where there are any; n are the item's training
    events. ``weights`` [3 or 4, K] float64 are a, b, c and d at KNOTS.
    """

    weights: np.ndarray

    @staticmethod
    def start(likenesses: int = 1) -> FrequencyWeights:
        """Weights 1, 0, and 0 for each of so many similarities: the tower's score only."""
        return FrequencyWeights(np.eye(1, 2 + likenesses).T * np.ones(len(KNOTS)))

    def of(self, counts: np.ndarray) -> np.ndarray:
        """a, b, c and d [3 or 4, N] of items with ``counts`` [N] events."""
        interpolated: np.ndarray = self.weights @ knot_weights(counts).T.astype(np.float64)
        return interpolated
