"""The weights of the parts of a blended score, by the item's number of events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from learn_spark.model.scoring.frequency import KNOTS, knot_weights


@dataclass(frozen=True)
class FrequencyWeights:
    """score(user, item) = a(n) * l + b(n) + LIKENESS_SCALE * (c(n) * s + d(n) * t) + e(n) * r + f(n) * p + g(n) * m.

    n are the item's training events. l is the tower's inner product / temperature, s the cosine of the item's frozen
    content with the mean content of the user's last events. The others are there by setting (``Candidates``): t is the
    same as s of the items' vectors of co-visits, r is log(1 + the item's events in the last days of training), p the
    mean of log(1 + events) of the user's last items, and m is log(1 + the events that the tower reads of the user).
    ``weights`` [P, K] float64 are a, b, c and those of d to g that there are, at KNOTS.
    """

    weights: np.ndarray

    @staticmethod
    def start(parts: int = 3) -> FrequencyWeights:
        """Weights of so many parts: 1 for the tower's score, 0 for all others."""
        return FrequencyWeights(np.eye(1, parts).T * np.ones(len(KNOTS)))

    def of(self, counts: np.ndarray) -> np.ndarray:
        """The weights [P, N] of items with ``counts`` [N] events."""
        interpolated: np.ndarray = self.weights @ knot_weights(counts).T.astype(np.float64)
        return interpolated
