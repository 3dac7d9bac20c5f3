"""Weights of targets by their item's level of events: levels that blending leaves behind its single parts gain."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from learn_spark.core.settings.tower import BlendingSettings
from learn_spark.model.blending.candidates import Candidates
from learn_spark.model.blending.frequency_weights import FrequencyWeights
from learn_spark.model.scoring.frequency import LEVELS
from learn_spark.model.scoring.metrics import ndcg
from learn_spark.model.scoring.ranks import ranks_from_vectors

ROUNDS = 12
FAST_ROUNDS, FAST, SLOW = 3, 2.0, 0.7  # the factor of a shortfall in the first rounds and in the others
AVERAGED = 6  # the last rounds, of which the mean is taken
DEPTH = 10

Fit = Callable[[FrequencyWeights, np.ndarray], FrequencyWeights]


def with_weighted_levels(
    candidates: Candidates, weights: FrequencyWeights, importance: np.ndarray, settings: BlendingSettings, fit: Fit
) -> tuple[FrequencyWeights, np.ndarray]:
    """(weights, importance [N] of targets by item) after ROUNDS of a fit that bring LEVELS towards their floors.

    A level's floor is the larger of ``text_floor`` times its NDCG@10 by texts alone and ``tower_floor`` times that by
    the tower alone. ``fit`` minimises the loss from given weights under a given importance, which begins as
    ``importance``. A level below its floor gets a larger factor, in proportion to its shortfall, one above it a smaller
    one, at least 1: the multipliers of a constrained problem whose constraints are measured by the metric itself while
    the loss stands for it (Cotter et al. 2019, section 4). The importance is the mean of the last rounds; a final fit
    starts from the weights. Floors are aims, on these users: some shortfall stays, and more where not all can be kept.
    """
    level = np.searchsorted(LEVELS, candidates.counts, side="right") - 1
    text, tower = (_only(candidates, part) for part in (2, 0))
    floors = np.maximum(
        settings.text_floor * _ndcg_of_levels(candidates, text, level),
        settings.tower_floor * _ndcg_of_levels(candidates, tower, level),
    )
    kept = floors > 0
    factors, rounds = np.ones(len(LEVELS)), []
    for number in range(ROUNDS):
        found = _ndcg_of_levels(candidates, weights, level)
        shortfall = np.where(kept, 1.0 - found / np.where(kept, floors, 1.0), 0.0)
        factors = np.maximum(1.0, factors + (FAST if number < FAST_ROUNDS else SLOW) * shortfall)
        rounds.append(factors)
        weights = fit(weights, importance * factors[level])
    return weights, importance * np.mean(rounds[-AVERAGED:], axis=0)[level]


def _only(candidates: Candidates, part: int) -> FrequencyWeights:
    """The weights of one part of a score alone."""
    rows = np.zeros_like(FrequencyWeights.start(candidates.parts).weights)
    rows[part] = 1.0
    return FrequencyWeights(rows)


def _ndcg_of_levels(candidates: Candidates, weights: FrequencyWeights, level: np.ndarray) -> np.ndarray:
    """NDCG@10 [LEVELS] of users by their targets in each level; 0 without any."""
    queries = candidates.queries
    ranks = ranks_from_vectors(
        candidates.user_vectors,
        candidates.item_vectors(weights),
        queries.targets,
        queries.hidden,
        offsets=queries.offsets,
    )
    found = np.zeros(len(LEVELS))
    for number in range(len(LEVELS)):
        inside = level[queries.targets] == number
        if inside.any():
            starts = np.unique(queries.owners[inside], return_index=True)[1]
            found[number] = ndcg(ranks[inside], DEPTH, np.append(starts, inside.sum())).mean()
    return found
