"""The parts of a blended score for some users and a catalogue, before they are weighed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from learn_spark.model.blending.frequency_weights import FrequencyWeights
from learn_spark.model.scoring.frequency import LIKENESS_SCALE, PROFILE_SCALE
from learn_spark.model.scoring.queries import QueryBatch


@dataclass(frozen=True)
class Likeness:
    """Unit vectors of ``items`` [N, C], and ``means`` [B, C], the unit means of those of each user's last events."""

    means: np.ndarray
    items: np.ndarray


@dataclass(frozen=True)
class Candidates:
    """The parts of the scores of B users in a catalogue of N items.

    ``queries``: the users. ``likenesses``: content, and co-visits where these are blended, too. ``catalogue`` [N, D]:
    the tower's vectors; ``counts`` [N]: training events. ``temperature``: the tower's. ``stands_for`` [N]: the number
    of items that each represents in the softmax, 1 for every target (None: 1 for all). ``trend`` [N] and ``profiles``
    [B, 2] are r, and p and m divided by PROFILE_SCALE, of FrequencyWeights, None where they are not blended.
    """

    queries: QueryBatch
    likenesses: tuple[Likeness, ...]
    catalogue: np.ndarray
    counts: np.ndarray
    temperature: float
    stands_for: np.ndarray | None = None
    trend: np.ndarray | None = None
    profiles: np.ndarray | None = None

    @property
    def users(self) -> int:
        """B."""
        return len(self.queries.users)

    @property
    def parts(self) -> int:
        """P, the number of parts of a score."""
        return 2 + len(self.likenesses) + (self.trend is not None) + (0 if self.profiles is None else 2)

    def take(self, rows: np.ndarray) -> Candidates:
        """The candidates of the users ``rows`` [R]."""
        likenesses = tuple(replace(likeness, means=likeness.means[rows]) for likeness in self.likenesses)
        profiles = None if self.profiles is None else self.profiles[rows]
        return replace(self, queries=self.queries.take(rows), likenesses=likenesses, profiles=profiles)

    def measures(self) -> tuple[torch.Tensor | None, ...]:
        """The P parts in the order of FrequencyWeights: [B, N], or [1, N] or [B, 1] where users or items do not matter;
        None for 1.
        """
        score = torch.from_numpy(self.queries.users) @ torch.from_numpy(self.catalogue).T / self.temperature
        likenesses = (
            torch.from_numpy(likeness.means) @ torch.from_numpy(likeness.items).T * LIKENESS_SCALE
            for likeness in self.likenesses
        )
        trend = () if self.trend is None else (torch.from_numpy(self.trend)[None],)
        profiles = () if self.profiles is None else torch.from_numpy(self.profiles * PROFILE_SCALE).T.unsqueeze(2)
        return score, None, *likenesses, *trend, *profiles

    def measures_of_targets(self) -> np.ndarray:
        """The P parts [P, T] of the targets."""
        owners, targets = self.queries.owners, self.queries.targets
        score = np.einsum("td,td->t", self.queries.users[owners], self.catalogue[targets]) / self.temperature
        likenesses = (
            np.einsum("tc,tc->t", likeness.means[owners], likeness.items[targets]) * LIKENESS_SCALE
            for likeness in self.likenesses
        )
        trend = () if self.trend is None else (self.trend[targets],)
        profiles = () if self.profiles is None else self.profiles[owners].T * PROFILE_SCALE
        return np.stack([score, np.ones(len(targets)), *likenesses, *trend, *profiles])

    @cached_property
    def user_vectors(self) -> np.ndarray:
        """Vectors [B, V] whose inner products with ``item_vectors`` are scores."""
        ones = np.ones((self.users, 1), np.float32)
        means = (likeness.means for likeness in self.likenesses)
        profiles = np.zeros((self.users, 0), np.float32) if self.profiles is None else self.profiles
        return np.concatenate([self.queries.users, ones, *means, profiles], axis=1).astype(np.float32)

    def item_vectors(self, weights: FrequencyWeights) -> np.ndarray:
        """Vectors [N, V] whose inner products with ``user_vectors`` are scores by ``weights``."""
        score, popularity, *others = weights.of(self.counts)[:, :, None]
        likenesses = [
            likeness.items * (weight * LIKENESS_SCALE)
            for likeness, weight in zip(self.likenesses, others, strict=False)
        ]
        others = others[len(likenesses) :]
        if self.trend is not None:
            popularity = popularity + others.pop(0) * self.trend[:, None]
        profile = [np.broadcast_to(weight * PROFILE_SCALE, (len(self.counts), 1)) for weight in others]
        parts = [self.catalogue * (score / self.temperature), popularity, *likenesses, *profile]
        return np.concatenate(parts, axis=1).astype(np.float32)
