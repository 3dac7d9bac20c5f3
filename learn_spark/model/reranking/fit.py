"""Fitting the head on held-out targets, so that it learns what evidence is worth where the tower has not been told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.tower import RerankerSettings
from learn_spark.data.splits.folds import FOLDS, fold_of
from learn_spark.model.reranking.head import CrossFittedHeads, RerankerHead
from learn_spark.model.reranking.reranker import Reranker
from learn_spark.model.scoring.queries import QueryBatch

WEIGHT_DECAY = 1e-4
LEVELS_RATE = 10.0  # the per-knot weights are few and well determined: a 10 times higher rate
LEAST_STEPS = 300
CLIP = 5.0


class RerankerError(LearnSparkError):
    """A fit whose loss is not finite."""


def fit_heads(
    reranker: Reranker,
    queries: QueryBatch,
    user_ids: Sequence[str],
    settings: RerankerSettings,
    *,
    seed: int,
    advance: Callable[[int], object] = lambda count: None,
) -> CrossFittedHeads:
    """Heads of the targets of ``queries``: softmax over the catalogue, AdamW with a linearly falling rate.

    A user's loss is -log of the probability of any of their targets: for one target cross-entropy; of many the top of
    the list should have some, not all. A target of an item with n events weighs (1 + n) ^ -``settings.rare``, among the
    user's and, by their mean, the user among all. A batch has users of one fold, and teaches all heads but that fold's.
    ``advance`` is told how many users are done, of ``passes`` times all.

    The tower must not have learnt the targets, nor ``reranker.transitions`` counted them. Deterministic in ``seed``.
    Raises RerankerError where the loss is not finite.
    """
    fold = fold_of(user_ids)
    size = settings.batch_size
    sizes = [int((fold == f).sum()) for f in range(FOLDS)]
    every = passes(len(fold), settings)
    steps = [every * -(-rows // size) for rows in sizes]
    whole = HeadTrainer(settings, seed, sum(steps))
    folds = [HeadTrainer(settings, seed, sum(steps) - own) for own in steps]
    generator = np.random.default_rng([seed, len(fold)])
    for _ in range(every):
        batches: list[tuple[int, np.ndarray]] = []
        for f in range(FOLDS):
            order = generator.permutation(np.flatnonzero(fold == f))
            batches += [(f, order[start : start + size]) for start in range(0, len(order), size)]
        for number in generator.permutation(len(batches)):
            f, batch = batches[number]
            trainers = [whole, *(other for g, other in enumerate(folds) if g != f)]
            train_step(trainers, reranker, queries, batch, settings.rare)
            advance(len(batch))
    return CrossFittedHeads(whole.head.eval(), tuple(trainer.head.eval() for trainer in folds))


def passes(users: int, settings: RerankerSettings) -> int:
    """Passes over ``users``: ``settings.epochs``, or more where these would be fewer than LEAST_STEPS batches."""
    return max(settings.epochs, -(-LEAST_STEPS // max(1, -(-users // settings.batch_size))))


class HeadTrainer:
    """A head, and where it stands on its way of ``steps``."""

    def __init__(self, settings: RerankerSettings, seed: int, steps: int) -> None:
        torch.manual_seed(seed)
        self.head = RerankerHead(hidden=settings.hidden).train()
        self.rate, self.steps, self.done = settings.learning_rate, steps, 0
        frequency_weights = [self.head.scale, self.head.popularity, self.head.likeness]
        groups = [
            {"params": frequency_weights, "times": LEVELS_RATE},
            {"params": [*self.head.score.parameters()], "times": 1.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=self.rate, weight_decay=WEIGHT_DECAY)

    def step(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group["times"] * (1.0 - self.done / self.steps)
        nn.utils.clip_grad_norm_(self.head.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1


def train_step(
    trainers: Sequence[HeadTrainer], reranker: Reranker, queries: QueryBatch, batch: np.ndarray, rare: float
) -> None:
    # Of a large catalogue few users fit at once: their gradients are added up to the batch's.
    whole = float(queries.take(batch).weights(reranker.transitions.counts, rare)[1].sum())
    for begin in range(0, len(batch), reranker.block):
        part = queries.take(batch[begin : begin + reranker.block])
        seen = reranker.see(part)
        owners, targets = torch.from_numpy(part.owners), torch.from_numpy(part.targets)
        shares, users = (torch.from_numpy(found).float() for found in part.weights(reranker.transitions.counts, rare))
        for trainer in trainers:
            scores = reranker.weigh(trainer.head, seen)
            own = scores[owners, targets] - torch.logsumexp(scores, dim=1)[owners] + shares.log()
            best = own.detach().new_full((len(users),), -torch.inf).scatter_reduce(0, owners, own.detach(), "amax")
            any_of = best + own.new_zeros(len(users)).index_add(0, owners, torch.exp(own - best[owners])).log()
            loss = -(any_of * users).sum() / whole
            if not torch.isfinite(loss):
                raise RerankerError(
                    f"reranker: the loss is {loss.item()} after {trainer.done} steps; "
                    "lower tower.reranker.learning_rate"
                )
            loss.backward()
    for trainer in trainers:
        trainer.step()
