"""Counts, means and co-moments of users' sums, merged batch by batch: the input of lift, its variance and CUPED."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# What is summed for a user: in the experiment's period, and the same before it.
SUMS = ("exposures", "conversions", "converters", "revenue")
WIDTH = 2 * len(SUMS)


@dataclass(frozen=True)
class Moments:
    """``users`` [...], ``mean`` [..., K], ``comoment`` [..., K, K]: the sum over users of (v - mean)(v - mean)'."""

    users: np.ndarray
    mean: np.ndarray
    comoment: np.ndarray

    @staticmethod
    def of(values: np.ndarray) -> Moments:
        """The moments of ``values`` [n, K]; n may be 0."""
        users = len(values)
        mean = values.mean(axis=0) if users else np.zeros(values.shape[1])
        centred = values - mean
        return Moments(np.array(users, np.float64), mean, centred.T @ centred)

    def merged(self, other: Moments) -> Moments:
        """The moments of both together (Chan, Golub and LeVeque 1979), without the cancellation of sums of squares."""
        users = self.users + other.users
        whole = np.maximum(users, 1.0)
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.users / whole)[..., None]
        between = (self.users * other.users / whole)[..., None, None] * delta[..., :, None] * delta[..., None, :]
        return Moments(users, mean, self.comoment + other.comoment + between)

    def covariance(self) -> np.ndarray:
        """The unbiased covariance of the users' values, [..., K, K]."""
        return self.comoment / np.maximum(self.users - 1.0, 1.0)[..., None, None]
