"""Fitting levels on held-out targets: a conditional logit (McFadden 1974), whose one optimum Newton's method finds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.tower import BlendingSettings
from learn_spark.data.splits.folds import FOLDS, fold_of
from learn_spark.model.blending.frequency_weights import FrequencyWeights
from learn_spark.model.scoring.frequency import KNOTS, LIKENESS_SCALE, between_knots
from learn_spark.model.scoring.queries import BLOCK_SCORES, QueryBatch

RIDGE = 1.0  # of the distance from the tower alone: as much as one user
LEAST_SHARE = 1e-3
CLOSE = 1e-6  # stop when the predicted improvement per user falls below this


class BlendingError(LearnSparkError):
    """A fit whose loss is not finite."""


@dataclass(frozen=True)
class Candidates:
    """What the scores of some users are made of.

    ``queries``: B users. ``means`` [B, C]: unit mean content of each user's last events. Of all items: ``catalogue``
    [N, D], the tower's vectors; ``content`` [N, C] of length 1; ``counts`` [N], training events. ``temperature``: the
    tower's.
    """

    queries: QueryBatch
    means: np.ndarray
    catalogue: np.ndarray
    content: np.ndarray
    counts: np.ndarray
    temperature: float

    def take(self, rows: np.ndarray) -> Candidates:
        """The users ``rows`` [R]."""
        return Candidates(
            self.queries.take(rows), self.means[rows], self.catalogue, self.content, self.counts, self.temperature
        )


def fit_frequency_weights(
    candidates: Candidates,
    user_ids: Sequence[str],
    settings: BlendingSettings,
    *,
    seed: int,
) -> tuple[FrequencyWeights, tuple[FrequencyWeights, ...]]:
    """(levels of the targets of all users, and those of each fold's that were fitted on the others' only).

    A user's loss is -log softmax over the user's candidates, averaged over their targets; a target of an item with n
    events weighs (1 + n) ^ -``settings.rare``, among the user's and, by their mean, the user among all. Of more than
    ``settings.users`` users so many are drawn. The tower must not have learnt the targets, nor ``candidates.counts``
    counted them. Deterministic in ``seed``. Raises BlendingError where a score is not finite.
    """
    chosen = np.arange(len(user_ids))
    if len(chosen) > settings.users:
        chosen = np.sort(np.random.default_rng(seed).permutation(chosen)[: settings.users])
        candidates = candidates.take(chosen)
    fold = fold_of([user_ids[row] for row in chosen])
    others = (np.flatnonzero(fold != f) for f in range(FOLDS))
    # A fold's levels do not begin with those of all: they would know something of its users.
    whole, *folds = (_fit(candidates.take(rows), settings.rare) for rows in (np.arange(len(chosen)), *others))
    return whole, tuple(folds)


def _fit(candidates: Candidates, rare: float) -> FrequencyWeights:
    # What is far from the optimum is brought near it by an eighth of the users.
    few = candidates.take(np.arange(0, len(candidates.means), 8))
    return _newton(candidates, _newton(few, FrequencyWeights.start(), rare), rare)


def _newton(candidates: Candidates, start: FrequencyWeights, rare: float) -> FrequencyWeights:
    at, origin = start.weights.reshape(-1), FrequencyWeights.start().weights.reshape(-1)
    blocks = list(_blocks(candidates, rare))
    loss, gradient, curvature = _derivatives(blocks, at, origin)
    step = np.linalg.solve(curvature, gradient)
    share = 1.0
    # Armijo's rule: a step that overshoots is halved; where not even a small one helps, rounding is all that is left.
    while (promised := float(gradient @ step)) > CLOSE * sum(block.weight for block in blocks) and share > LEAST_SHARE:
        tried = at - share * step
        found = _derivatives(blocks, tried, origin)
        if found[0] > loss - 1e-4 * share * promised:
            share /= 2.0
            continue
        at, (loss, gradient, curvature), share = tried, found, 1.0
        step = np.linalg.solve(curvature, gradient)
    return FrequencyWeights(at.reshape(3, len(KNOTS)))


@dataclass(frozen=True)
class _Block:
    """Some users: ``events`` [N, K] between knots, what is ``hidden``, ``wanted`` [3, K] the targets' measures, summed,
    ``users`` [b] what each weighs, and the sum of these.
    """

    candidates: Candidates
    events: torch.Tensor
    hidden: tuple[torch.Tensor, torch.Tensor]
    wanted: np.ndarray
    users: torch.Tensor
    weight: float

    def measures(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The tower's scores and the likeness, [b, N]."""
        own = self.candidates
        score = torch.from_numpy(own.queries.users) @ torch.from_numpy(own.catalogue).T / own.temperature
        likeness = torch.from_numpy(own.means) @ torch.from_numpy(own.content).T * LIKENESS_SCALE
        return score, likeness


def _blocks(candidates: Candidates, rare: float) -> Iterator[_Block]:
    events = between_knots(candidates.counts)
    size = max(1, BLOCK_SCORES // len(candidates.catalogue))
    for start in range(0, len(candidates.means), size):
        part = candidates.take(np.arange(start, min(start + size, len(candidates.means))))
        queries = part.queries
        owners, targets = queries.owners, queries.targets
        shares, users = queries.weights(candidates.counts, rare)
        score = np.einsum("td,td->t", queries.users[owners], candidates.catalogue[targets]) / candidates.temperature
        likeness = np.einsum("tc,tc->t", part.means[owners], candidates.content[targets]) * LIKENESS_SCALE
        measures = np.stack([score, np.ones(len(targets)), likeness]) * shares * users[owners]
        yield _Block(
            part,
            torch.from_numpy(events),
            queries.unranked(len(candidates.catalogue)),
            measures @ events[targets].astype(np.float64),
            torch.from_numpy(users).float(),
            float(users.sum()),
        )


@torch.inference_mode()
def _derivatives(blocks: Sequence[_Block], at: np.ndarray, origin: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """The loss at the weights ``at`` [3 K] with its ridge, its gradient and its curvature."""
    size, knots = len(at), len(KNOTS)
    away = at - origin
    loss, gradient, curvature = RIDGE * float(away @ away) / 2, RIDGE * away, RIDGE * np.eye(size)
    a, b, c = torch.from_numpy(at.reshape(3, knots)).float()
    for block in blocks:
        events = block.events
        score, likeness = block.measures()
        utility = score * (events @ a) + events @ b + likeness * (events @ c)
        utility[block.hidden] = -torch.inf
        norm = torch.logsumexp(utility, dim=1)
        chance = torch.exp(utility - norm.unsqueeze(1))
        loss += float((norm.double() * block.users).sum()) - float((block.wanted.reshape(-1) * at).sum())
        if not np.isfinite(loss):
            raise BlendingError("the fusion's loss is not finite; is a vector of the tower or of the content not?")
        measures = (score, None, likeness)
        # E[x] and E[x x'] over what may be offered, x being a measure between its item's knots.
        times = [chance if measure is None else chance * measure for measure in measures]
        means = torch.cat([own @ events for own in times], dim=1).double()
        weighed = means * block.users.double().unsqueeze(1)
        gradient = gradient + weighed.sum(dim=0).numpy() - block.wanted.reshape(-1)
        second = torch.empty(3, knots, 3, knots, dtype=torch.float64)
        for i in range(3):
            of_users = times[i] * block.users.unsqueeze(1)
            for j in range(i, 3):
                measure = measures[j]
                of_items = (of_users if measure is None else of_users * measure).sum(dim=0).double()
                found = events.double().T @ (events.double() * of_items.unsqueeze(1))
                second[i, :, j], second[j, :, i] = found, found
        curvature = curvature + (second.reshape(size, size) - means.T @ weighed).numpy()
    return loss, gradient, curvature
