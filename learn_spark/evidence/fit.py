"""Fitting the head on held-out targets, so that it learns what evidence is worth where the tower has not been told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from learn_spark.errors import LearnSparkError
from learn_spark.evidence.head import FOLDS, EvidenceHead, Heads, fold_of
from learn_spark.evidence.judge import Asked, Judge
from learn_spark.settings.schema import Evidence

WEIGHT_DECAY = 1e-4
CLIP = 5.0


class EvidenceFailed(LearnSparkError):
    """A fit whose loss is not finite."""


def fit_heads(
    judge: Judge,
    asked: Asked,
    user_ids: Sequence[str],
    settings: Evidence,
    *,
    seed: int,
    advance: Callable[[int], object] = lambda count: None,
) -> Heads:
    """Heads of the targets of ``asked``: softmax cross-entropy over the catalogue, AdamW with a linearly falling rate.
    Every user weighs the same, however many targets he has, as in the metrics; a target of an item with n events weighs
    (1 + n) ^ -``settings.rare`` besides. A batch has users of one fold, and teaches all heads but that fold's;
    ``advance`` is told how many users are done, of ``settings.epochs`` times all.

    The tower must not have learnt the targets, nor ``judge.transitions`` counted them. Deterministic in ``seed``.
    Raises EvidenceFailed where the loss is not finite.
    """
    fold = fold_of(user_ids)
    size = settings.batch_size
    sizes = [int((fold == f).sum()) for f in range(FOLDS)]
    steps = [settings.epochs * -(-rows // size) for rows in sizes]
    whole = _Pupil(settings, seed, sum(steps))
    folds = [_Pupil(settings, seed, sum(steps) - own) for own in steps]
    generator = np.random.default_rng([seed, len(fold)])
    for _ in range(settings.epochs):
        batches: list[tuple[int, np.ndarray]] = []
        for f in range(FOLDS):
            order = generator.permutation(np.flatnonzero(fold == f))
            batches += [(f, order[start : start + size]) for start in range(0, len(order), size)]
        for number in generator.permutation(len(batches)):
            f, batch = batches[number]
            pupils = [whole, *(other for g, other in enumerate(folds) if g != f)]
            _teach(pupils, judge, asked, batch, settings.rare)
            advance(len(batch))
    return Heads(whole.head.eval(), tuple(pupil.head.eval() for pupil in folds))


class _Pupil:
    """A head, and where it stands on its way of ``steps``."""

    def __init__(self, settings: Evidence, seed: int, steps: int) -> None:
        torch.manual_seed(seed)
        self.head = EvidenceHead(hidden=settings.hidden).train()
        self.rate, self.steps, self.done = settings.learning_rate, steps, 0
        self.optimizer = torch.optim.AdamW(self.head.parameters(), lr=self.rate, weight_decay=WEIGHT_DECAY)

    def step(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * (1.0 - self.done / self.steps)
        nn.utils.clip_grad_norm_(self.head.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1


def _teach(pupils: Sequence[_Pupil], judge: Judge, asked: Asked, batch: np.ndarray, rare: float) -> None:
    # Of a large catalogue few users fit at once: their gradients are added up to the batch's.
    whole = float(_weights(judge, asked.take(batch), rare).sum())
    for begin in range(0, len(batch), judge.block):
        part = asked.take(batch[begin : begin + judge.block])
        seen = judge.see(part)
        owners, targets = torch.from_numpy(part.owners), torch.from_numpy(part.targets)
        weights = torch.from_numpy(_weights(judge, part, rare)).float() / whole
        for pupil in pupils:
            scores = judge.weigh(pupil.head, seen)
            own = scores[owners, targets] - torch.logsumexp(scores, dim=1)[owners]
            loss = -(own * weights).sum()
            if not torch.isfinite(loss):
                raise EvidenceFailed(
                    f"the evidence's loss is {loss.item()} after {pupil.done} steps; lower tower.evidence.learning_rate"
                )
            loss.backward()
    for pupil in pupils:
        pupil.step()


def _weights(judge: Judge, asked: Asked, rare: float) -> np.ndarray:
    """What each target [T] weighs."""
    share = 1.0 / np.diff(asked.offsets)[asked.owners]
    rarity: np.ndarray = share * (1.0 + judge.transitions.counts[asked.targets]) ** -rare
    return rarity
