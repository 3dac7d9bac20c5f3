"""Fitting the projections: a softmax over items by narrow vectors learns that by the wide ones, without any target.

The start is the projection whose scores differ least from those of the wide vectors, over all pairs of users and items
(the truncated singular value decomposition of the matrix of scores). It keeps the directions along which scores vary
most, which are those of popular items. The softmax (distillation, Hinton et al. 2015) keeps what decides the order of
each user's best items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.tower import NarrowingSettings
from learn_spark.model.narrowing.projections import Projections
from learn_spark.model.scoring.queries import places_among

# Scores times this, so that the best items of a user weigh more in the fit than the many below them.
SHARPNESS = 2.0
# Adam's first step in shares of a map's mean absolute entry; it falls to 0.
STEP = 0.05
NEGLIGIBLE = 1e-9  # directions of users with less than this share of the largest variance are left out


class NarrowingError(LearnSparkError):
    """Vectors or a loss that are not finite, or fewer directions than numbers wanted."""


@dataclass(frozen=True)
class WideVectors:
    """What is narrowed: ``users`` [B, D], and ``items`` [S, D] at the increasing ``positions`` [S] of the catalogue.

    ``hidden`` [B] are positions that are not ranked for a user. An inner product divided by ``temperature`` is a
    softmax's logit. ``unit``: whether all have length 1.
    """

    users: np.ndarray
    items: np.ndarray
    positions: np.ndarray
    hidden: Sequence[np.ndarray]
    temperature: float
    unit: bool


def fit_projections(
    wide: WideVectors,
    settings: NarrowingSettings,
    *,
    seed: int,
    advance: Callable[[int], object] = lambda count: None,
) -> Projections:
    """Projections to ``settings.width`` numbers whose softmax is nearest to that of ``wide``.

    Each of ``settings.steps`` steps of Adam takes the mean cross-entropy of ``settings.batch_size`` users over
    ``settings.items`` items, both drawn at random, with all scores times SHARPNESS. ``advance`` receives numbers of
    steps. Deterministic in ``seed``. Raises NarrowingError where users lie in fewer directions than numbers are wanted,
    and where vectors or the loss are not finite.
    """
    if not (np.isfinite(wide.users).all() and np.isfinite(wide.items).all()):
        raise NarrowingError("narrowing: vectors of users or items are not finite")
    centre = wide.items.mean(axis=0, dtype=np.float64)
    maps = [torch.from_numpy(start) for start in _start(wide, centre, settings.width - wide.unit)]
    for start in maps:
        start.requires_grad_()
    users = torch.from_numpy(wide.users)
    items = torch.from_numpy((wide.items - centre).astype(np.float32))
    optimizer = torch.optim.Adam([{"params": [one], "lr": STEP * float(one.detach().abs().mean())} for one in maps])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 - step / max(1, settings.steps))
    chance = np.random.default_rng(seed)
    for _ in range(settings.steps):
        rows = chance.integers(len(users), size=min(settings.batch_size, len(users)))
        columns = _drawn(len(items), settings.items, chance)
        unranked = _unranked([wide.hidden[row] for row in rows], wide.positions[columns])
        loss = _loss(users[rows], items[columns], maps, unranked, wide.temperature / SHARPNESS)
        if not torch.isfinite(loss):
            raise NarrowingError("narrowing: the loss is not finite")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        advance(1)
    of_users, of_items = (one.detach() for one in maps)
    longest = float((items @ of_items).norm(dim=1).max())
    return Projections(of_users.numpy(), of_items.numpy(), centre.astype(np.float32), longest, wide.unit)


def _start(wide: WideVectors, centre: np.ndarray, numbers: int) -> tuple[np.ndarray, np.ndarray]:
    """The maps [D, K] of users and items with the least squared difference of scores, over all pairs of them."""
    users, items = wide.users.astype(np.float64), wide.items - centre
    variances, directions = np.linalg.eigh(users.T @ users / len(users))
    kept = variances > NEGLIGIBLE * variances[-1]
    if kept.sum() < numbers:
        raise NarrowingError(
            f"narrowing: the vectors of {len(users):,} users lie in {kept.sum()} directions, fewer than {numbers}"
        )
    scales, directions = np.sqrt(variances[kept]), directions[:, kept]
    root = directions * scales  # users' second moments are root @ root.T
    _, singular = np.linalg.eigh(root.T @ (items.T @ items) @ root)
    best = singular[:, ::-1][:, :numbers]
    return ((directions / scales) @ best).astype(np.float32), (root @ best).astype(np.float32)


def _drawn(items: int, most: int, chance: np.random.Generator) -> np.ndarray:
    """All of ``items`` positions, or ``most`` of them drawn at random, increasing."""
    return np.arange(items) if items <= most else np.sort(chance.choice(items, most, replace=False))


def _unranked(hidden: Sequence[np.ndarray], positions: np.ndarray) -> tuple[Tensor, Tensor]:
    """Rows and columns, among the increasing ``positions``, of what is ``hidden``."""
    rows, columns = places_among(hidden, positions)
    return torch.from_numpy(rows), torch.from_numpy(columns)


def _loss(
    users: Tensor,
    items: Tensor,
    maps: Sequence[Tensor],
    unranked: tuple[Tensor, Tensor],
    temperature: float,
) -> Tensor:
    """The mean cross-entropy of the narrow softmax against the wide one, of users for whom an item is left to rank."""
    logits = (users @ items.T / temperature).index_put(unranked, torch.tensor(-torch.inf))
    left = logits.amax(dim=1) > -torch.inf
    wanted = logits[left].softmax(dim=1)
    of_users, of_items = maps
    narrow = (users @ of_users) @ (items @ of_items).T / temperature
    # Where an item is not ranked its probability is 0, and so must its log be finite.
    narrow = narrow.index_put(unranked, torch.tensor(-1e9))[left]
    return -(wanted * narrow.log_softmax(dim=1)).sum() / max(1, len(wanted))
