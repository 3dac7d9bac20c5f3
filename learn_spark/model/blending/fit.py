"""Fitting frequency weights on held-out targets: a conditional logit (McFadden 1974), solved by Newton's method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.tower import BlendingSettings
from learn_spark.data.splits.folds import FOLDS, fold_of
from learn_spark.model.blending.candidates import Candidates
from learn_spark.model.blending.frequency_weights import FrequencyWeights
from learn_spark.model.blending.levels import with_weighted_levels
from learn_spark.model.scoring.frequency import KNOTS, knot_weights
from learn_spark.model.scoring.queries import BLOCK_SCORES, rarity

RIDGE = 1.0  # penalty on the distance from the start weights: as much as one user
MIN_STEP = 1e-3
TOLERANCE = 1e-6  # Newton stops when the predicted decrease per user falls below this


class BlendingError(LearnSparkError):
    """A fit whose loss is not finite."""


def fit_frequency_weights(
    candidates: Candidates,
    user_ids: Sequence[str],
    settings: BlendingSettings,
    *,
    seed: int,
) -> tuple[FrequencyWeights, tuple[FrequencyWeights, ...]]:
    """(weights fitted on all users' targets, and for each fold weights fitted on the other folds' users).

    A user's loss is -log softmax over the user's candidates, averaged over their targets. A target of an item with n
    events weighs (1 + n) ^ -``settings.rare``, among the user's targets, and by their mean the user among all users;
    with ``settings.text_floor`` or ``tower_floor``, times the factor of its level (levels.py). If there are more than
    ``settings.users`` users, that many are drawn. The tower must not be trained on the targets, and
    ``candidates.counts`` must not count them. Deterministic in ``seed``. Raises BlendingError where a score is not
    finite.
    """
    chosen = np.arange(len(user_ids))
    if len(chosen) > settings.users:
        chosen = np.sort(np.random.default_rng(seed).permutation(chosen)[: settings.users])
        candidates = candidates.take(chosen)
    fold = fold_of([user_ids[row] for row in chosen])
    others = (np.flatnonzero(fold != f) for f in range(FOLDS))
    # A fold's fit does not start from the weights of all users, which depend on the fold's users.
    full, *folds = (_fit(candidates.take(rows), settings) for rows in (np.arange(len(chosen)), *others))
    return full, tuple(folds)


def _fit(candidates: Candidates, settings: BlendingSettings) -> FrequencyWeights:
    # An eighth of the users brings the weights near the optimum at an eighth of the cost.
    subset = candidates.take(np.arange(0, candidates.users, 8))
    importance = rarity(candidates.counts, settings.rare)
    weights = newton(subset, FrequencyWeights.start(candidates.parts), importance)
    if settings.text_floor or settings.tower_floor:
        few = candidates.take(np.arange(0, candidates.users, 4))

        def fit(start: FrequencyWeights, importance: np.ndarray) -> FrequencyWeights:
            return newton(few, start, importance)

        weights, importance = with_weighted_levels(candidates, weights, importance, settings, fit)
    return newton(candidates, weights, importance)


def newton(candidates: Candidates, start: FrequencyWeights, importance: np.ndarray) -> FrequencyWeights:
    """The weights that minimise the penalised loss, from ``start``, by Newton's method with Armijo's step rule.

    ``importance`` [N] weighs the targets by item. Raises BlendingError where a score is not finite.
    """
    weights = start.weights.reshape(-1)
    origin = FrequencyWeights.start(candidates.parts).weights.reshape(-1)
    blocks = list(_blocks(candidates, importance))
    loss, gradient, curvature = _derivatives(blocks, weights, origin)
    step = np.linalg.solve(curvature, gradient)
    step_size, least_decrease = 1.0, TOLERANCE * sum(block.weight for block in blocks)
    # Armijo's rule: a step that overshoots is halved. Where not even a small step helps, the rest is rounding error.
    while (decrease := float(gradient @ step)) > least_decrease and step_size > MIN_STEP:
        candidate = weights - step_size * step
        derivatives = _derivatives(blocks, candidate, origin)
        if derivatives[0] > loss - 1e-4 * step_size * decrease:
            step_size /= 2.0
            continue
        weights, (loss, gradient, curvature), step_size = candidate, derivatives, 1.0
        step = np.linalg.solve(curvature, gradient)
    return FrequencyWeights(weights.reshape(-1, len(KNOTS)))


@dataclass(frozen=True)
class _Block:
    """Some users of a fit, b of them.

    ``knots`` [N, K] are the items' interpolation weights, ``hidden`` the rows and positions that are not ranked,
    ``target_sums`` [P, K] the weighted sums of the targets' measures, ``users`` [b] their weights, ``weight`` their
    sum.
    """

    candidates: Candidates
    knots: torch.Tensor
    hidden: tuple[torch.Tensor, torch.Tensor]
    target_sums: np.ndarray
    users: torch.Tensor
    weight: float


def _blocks(candidates: Candidates, importance: np.ndarray) -> Iterator[_Block]:
    """The users in blocks of about BLOCK_SCORES scores."""
    knots = knot_weights(candidates.counts)
    size = max(1, BLOCK_SCORES // len(candidates.catalogue))
    for start in range(0, candidates.users, size):
        part = candidates.take(np.arange(start, min(start + size, candidates.users)))
        queries = part.queries
        shares, users = queries.weights(importance)
        measures = part.measures_of_targets() * shares * users[queries.owners]
        yield _Block(
            part,
            torch.from_numpy(knots),
            queries.unranked(len(candidates.catalogue)),
            measures @ knots[queries.targets].astype(np.float64),
            torch.from_numpy(users).float(),
            float(users.sum()),
        )


@torch.inference_mode()
def _derivatives(
    blocks: Sequence[_Block], weights: np.ndarray, origin: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """The penalised loss at ``weights`` [P K], its gradient [P K] and its curvature [P K, P K]."""
    size, knots = len(weights), len(KNOTS)
    parts = size // knots
    deviation = weights - origin
    loss, gradient, curvature = RIDGE * float(deviation @ deviation) / 2, RIDGE * deviation, RIDGE * np.eye(size)
    by_part = torch.from_numpy(weights.reshape(parts, knots)).float()
    for block in blocks:
        item_knots = block.knots
        measures = block.candidates.measures()
        utility = torch.zeros(len(block.users), len(item_knots))
        for values, at_knots in zip(measures, by_part, strict=True):
            utility += item_knots @ at_knots if values is None else values * (item_knots @ at_knots)
        if block.candidates.stands_for is not None:
            utility += torch.from_numpy(np.log(block.candidates.stands_for)).float()
        utility[block.hidden] = -torch.inf
        norm = torch.logsumexp(utility, dim=1)
        probability = torch.exp(utility - norm.unsqueeze(1))
        loss += float((norm.double() * block.users).sum()) - float((block.target_sums.reshape(-1) * weights).sum())
        if not np.isfinite(loss):
            raise BlendingError(
                "blending: the loss is not finite; check that the tower's vectors and the content are finite"
            )
        # E[x] and E[x x'] over the ranked items, where x is a measure times its item's interpolation weights.
        weighted = [probability if measure is None else probability * measure for measure in measures]
        means = torch.cat([values @ item_knots for values in weighted], dim=1).double()
        user_means = means * block.users.double().unsqueeze(1)
        gradient = gradient + user_means.sum(dim=0).numpy() - block.target_sums.reshape(-1)
        second = torch.empty(parts, knots, parts, knots, dtype=torch.float64)
        for i in range(parts):
            user_weighted = weighted[i] * block.users.unsqueeze(1)
            for j in range(i, parts):
                measure = measures[j]
                item_weights = (user_weighted if measure is None else user_weighted * measure).sum(dim=0).double()
                curvature_part = item_knots.double().T @ (item_knots.double() * item_weights.unsqueeze(1))
                second[i, :, j], second[j, :, i] = curvature_part, curvature_part
        curvature = curvature + (second.reshape(size, size) - means.T @ user_means).numpy()
    return loss, gradient, curvature
