"""Fitting the reranker's heads on held-out targets, which the tower was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.tower import RerankerSettings
from learn_spark.data.splits.folds import FOLDS, fold_of
from learn_spark.model.reranking.head import CrossFittedHeads, RerankerHead
from learn_spark.model.reranking.reranker import Reranker, ScoredBatch
from learn_spark.model.scoring.queries import QueryBatch, rarity

WEIGHT_DECAY = 1e-4
FREQUENCY_RATE = 10.0  # factor on the learning rate of the few, well-determined weights per knot
MIN_STEPS = 300
CLIP = 5.0


class RerankerError(LearnSparkError):
    """A fit whose loss is not finite."""


def fit_heads(
    rerankers: Sequence[Reranker],
    queries: QueryBatch,
    user_ids: Sequence[str],
    settings: RerankerSettings,
    *,
    seed: int,
    advance: Callable[[int], object] = lambda count: None,
) -> CrossFittedHeads:
    """Heads fitted on the targets of ``queries``: softmax over the catalogue, AdamW with a linearly falling rate.

    A user's loss is -log of the probability of any of their targets: cross-entropy for one target; for many, the top of
    the list should contain some of them. A target of an item with n events weighs (1 + n) ^ -``settings.rare``, among
    the user's targets, and by their mean the user among all users. A batch has users of one fold and trains all heads
    but that fold's. ``advance`` receives numbers of finished users, ``passes`` times all users in total.

    ``rerankers[f]`` scores the users of fold f; where these differ, they have vectors blended by weights that were not
    fitted on those users. The tower must not be trained on the targets, and ``transitions`` must not count them.
    Deterministic in ``seed``. Raises RerankerError where the loss is not finite.
    """
    fold = fold_of(user_ids)
    size = settings.batch_size
    sizes = [int((fold == fold_number).sum()) for fold_number in range(FOLDS)]
    every = passes(len(fold), settings)
    steps = [every * -(-rows // size) for rows in sizes]
    full = HeadTrainer(settings, seed, sum(steps))
    folds = [HeadTrainer(settings, seed, sum(steps) - fold_steps) for fold_steps in steps]
    generator = np.random.default_rng([seed, len(fold)])
    # Every pass needs the same inputs of a user; where all fit in memory, they are computed once.
    few = len(fold) <= rerankers[0].block
    prepared = [reranker.prepare(queries) for reranker in rerankers] if few else [None] * FOLDS
    importance = rarity(rerankers[0].transitions.counts, settings.rare)
    for _ in range(every):
        batches: list[tuple[int, np.ndarray]] = []
        for fold_number in range(FOLDS):
            order = generator.permutation(np.flatnonzero(fold == fold_number))
            batches += [(fold_number, order[start : start + size]) for start in range(0, len(order), size)]
        for number in generator.permutation(len(batches)):
            fold_number, batch = batches[number]
            trainers = [full, *(trainer for other_number, trainer in enumerate(folds) if other_number != fold_number)]
            train_step(trainers, rerankers[fold_number], queries, batch, importance, prepared[fold_number])
            advance(len(batch))
    return CrossFittedHeads(full.head.eval(), tuple(trainer.head.eval() for trainer in folds))


def passes(users: int, settings: RerankerSettings) -> int:
    """Passes over ``users``: ``settings.epochs``, or more where these would be fewer than MIN_STEPS batches."""
    return max(settings.epochs, -(-MIN_STEPS // max(1, -(-users // settings.batch_size))))


class HeadTrainer:
    """A head in training for ``steps`` steps, of which ``done`` are finished."""

    def __init__(self, settings: RerankerSettings, seed: int, steps: int) -> None:
        torch.manual_seed(seed)
        self.head = RerankerHead(hidden=settings.hidden).train()
        self.rate, self.steps, self.done = settings.learning_rate, steps, 0
        frequency_weights = [self.head.scale, self.head.popularity, self.head.likeness]
        groups = [
            {"params": frequency_weights, "times": FREQUENCY_RATE},
            {"params": [*self.head.score.parameters()], "times": 1.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=self.rate, weight_decay=WEIGHT_DECAY)

    def step(self) -> None:
        """Update the head by its accumulated gradients, at this step's learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group["times"] * (1.0 - self.done / self.steps)
        nn.utils.clip_grad_norm_(self.head.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1


def train_step(
    trainers: Sequence[HeadTrainer],
    reranker: Reranker,
    queries: QueryBatch,
    batch: np.ndarray,
    importance: np.ndarray,
    prepared: ScoredBatch | None = None,
) -> None:
    """One step of all ``trainers`` on the users ``batch`` of ``queries``.

    ``importance`` [N] weighs the targets by item. ``prepared`` is ``reranker.prepare(queries)``; without it, the part
    of the batch is computed.

    Raises RerankerError where the loss is not finite.
    """
    # In a large catalogue few users fit in memory at once; their gradients add up to the batch's.
    total_weight = float(queries.take(batch).weights(importance)[1].sum())
    for begin in range(0, len(batch), reranker.block):
        rows = batch[begin : begin + reranker.block]
        part = queries.take(rows)
        scored = reranker.prepare(part) if prepared is None else prepared.take(rows)
        owners, targets = torch.from_numpy(part.owners), torch.from_numpy(part.targets)
        shares, users = (torch.from_numpy(values).float() for values in part.weights(importance))
        for trainer in trainers:
            scores = reranker.apply(trainer.head, scored)
            # log of the sum of the probabilities of each user's targets
            log_p = scores[owners, targets] - torch.logsumexp(scores, dim=1)[owners] + shares.log()
            highest = log_p.detach().new_full((len(users),), -torch.inf)
            highest = highest.scatter_reduce(0, owners, log_p.detach(), "amax")
            log_any = (
                highest + log_p.new_zeros(len(users)).index_add(0, owners, torch.exp(log_p - highest[owners])).log()
            )
            loss = -(log_any * users).sum() / total_weight
            if not torch.isfinite(loss):
                raise RerankerError(
                    f"reranker: the loss is {loss.item()} after {trainer.done} steps; "
                    "lower tower.reranker.learning_rate"
                )
            loss.backward()
    for trainer in trainers:
        trainer.step()
