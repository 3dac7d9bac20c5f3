"""Fitting the reranker's second heads on held-out targets, upon the first heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from learn_spark.core.settings.tower import RefinementSettings, RerankerSettings
from learn_spark.data.splits.folds import FOLDS, fold_of
from learn_spark.model.reranking.fit import CLIP, WEIGHT_DECAY, RerankerError
from learn_spark.model.reranking.head import CrossFittedHeads, RerankerHead
from learn_spark.model.reranking.refinement import FEATURES, RefiningHead
from learn_spark.model.reranking.reranker import HIDDEN, Reranker
from learn_spark.model.scoring.queries import QueryBatch, rarity


@dataclass(frozen=True)
class _Inputs:
    """The best items of the users that have a target among them.

    ``features`` [U, K, F]; ``ranked`` [U, K]; ``shares`` [U, K]: each target's share of its user's weight, 0 for other
    items; ``weights`` [U]: the users'.
    """

    features: torch.Tensor
    ranked: torch.Tensor
    shares: torch.Tensor
    weights: torch.Tensor

    @classmethod
    def joined(cls, parts: Sequence[_Inputs]) -> _Inputs:
        filled = [part for part in parts if len(part.weights)]
        if not filled:
            nothing = torch.zeros(0, 1)
            return cls(torch.zeros(0, 1, len(FEATURES)), nothing.bool(), nothing, torch.zeros(0))
        return cls(*(torch.cat(list(same)) for same in zip(*(vars(part).values() for part in filled), strict=True)))


def fit_refinement(
    rerankers: Sequence[Reranker],
    heads: CrossFittedHeads,
    queries: QueryBatch,
    user_ids: Sequence[str],
    settings: RerankerSettings,
    *,
    seed: int,
    advance: Callable[[int], object] = lambda count: None,
) -> CrossFittedHeads:
    """``heads`` with second heads, fitted on the targets of ``queries`` that are among the first heads' best items.

    The loss is that of ``fit_heads``, over these items alone. The second head of fold f is fitted on the other users,
    by their scores of ``heads.folds[f]``, so that targets of the users of f have no more part in it than in that head;
    that of all users by scores of heads that were not fitted on them. ``rerankers[f]`` has the vectors that may rank
    the users of fold f. Up to 180 bytes for each user and item are in memory. ``advance`` receives numbers of
    finished users, FOLDS times all users in total. Deterministic in ``seed``.

    Raises RerankerError where the loss is not finite.
    """
    refinement = settings.refinement
    assert refinement is not None
    fold, importance = fold_of(user_ids), rarity(rerankers[0].transitions.counts, settings.rare)

    def read(number: int, users: np.ndarray) -> _Inputs:
        head = heads.folds[number]
        return _read(rerankers[number], head, queries.take(users), importance, refinement.items, advance)

    def fit(inputs: _Inputs) -> RefiningHead:
        return _fit(inputs, refinement, settings.batch_size, seed)

    folds = [fit(read(number, np.flatnonzero(fold != number))) for number in range(FOLDS)]
    full = fit(_Inputs.joined([read(number, np.flatnonzero(fold == number)) for number in range(FOLDS)]))
    return heads.refined(full, folds)


@torch.inference_mode()
def _read(
    reranker: Reranker,
    head: RerankerHead,
    queries: QueryBatch,
    importance: np.ndarray,
    items: int,
    advance: Callable[[int], object],
) -> _Inputs:
    parts = []
    for start in range(0, len(queries.users), reranker.block):
        part = queries.take(np.arange(start, min(start + reranker.block, len(queries.users))))
        best = reranker.best(head, part, items)
        shares, weights = (torch.from_numpy(values).float() for values in part.weights(importance))
        of_item = torch.zeros(len(part.users), len(reranker.catalogue))
        of_item[torch.from_numpy(part.owners), torch.from_numpy(part.targets)] = shares
        shares = of_item.gather(1, best.positions)
        usable = shares.sum(dim=1) > 0
        parts.append(_Inputs(best.features[usable], best.ranked[usable], shares[usable], weights[usable]))
        advance(len(part.users))
    return _Inputs.joined(parts)


def _fit(inputs: _Inputs, settings: RefinementSettings, batch_size: int, seed: int) -> RefiningHead:
    """A head by AdamW with a linearly falling rate; one that changes nothing where no user has a target."""
    torch.manual_seed(seed)
    head = RefiningHead(hidden=settings.hidden, items=settings.items)
    users = len(inputs.weights)
    if not users:
        return head.eval()
    deviation, mean = torch.std_mean(inputs.features[inputs.ranked], dim=0, correction=0)
    head.mean.copy_(mean)
    head.scale.copy_(deviation.clamp(min=1e-6))
    optimizer = torch.optim.AdamW(head.parameters(), lr=settings.learning_rate, weight_decay=WEIGHT_DECAY)
    batches = -(-users // batch_size)
    # No least number of steps: with few users more passes fit their targets alone.
    steps = batches * settings.epochs
    generator = np.random.default_rng([seed, users])
    for step in range(steps):
        if step % batches == 0:
            order = torch.from_numpy(generator.permutation(users))
        rows = order[step % batches * batch_size :][:batch_size]
        scores = torch.where(inputs.ranked[rows], head(inputs.features[rows]), HIDDEN)
        log_any = torch.logsumexp(torch.log_softmax(scores, dim=1) + inputs.shares[rows].log(), dim=1)
        loss = -(log_any * inputs.weights[rows]).sum() / inputs.weights[rows].sum()
        if not torch.isfinite(loss):
            raise RerankerError(
                f"reranker: the loss of the second head is {loss.item()} after {step} steps; lower "
                "tower.reranker.refinement.learning_rate"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), CLIP)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * (1.0 - step / steps)
        optimizer.step()
    return head.eval()
