"""The weights of a tower's score, an item's popularity and its frozen content, by the item's number of events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from learn_spark.model.scoring.frequency import KNOTS, knot_weights


@dataclass(frozen=True)
class FrequencyWeights:
    """score(user, item) = a(n) * l + b(n) + c(n) * LIKENESS_SCALE * s.

    l is the tower's inner product / temperature, s the cosine of the item's frozen content with the mean content of the
    user's last events, n the item's training events. ``weights`` [3, K] float64 are a, b and c at KNOTS.
    """

    weights: np.ndarray

    @staticmethod
    def start() -> FrequencyWeights:
        """Weights 1, 0, 0: the tower's score only."""
        return FrequencyWeights(np.stack([np.ones(len(KNOTS)), np.zeros(len(KNOTS)), np.zeros(len(KNOTS))]))

    def of(self, counts: np.ndarray) -> np.ndarray:
        """a, b and c [3, N] of items with ``counts`` [N] events."""
        interpolated: np.ndarray = self.weights @ knot_weights(counts).T.astype(np.float64)
        return interpolated
