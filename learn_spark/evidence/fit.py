"""Fitting the head on held-out targets, so that it learns what evidence is worth where the tower has not been told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
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
    (1 + n) ^ -``settings.rare`` besides.

    The tower must not have learnt the targets, nor ``judge.transitions`` counted them. Deterministic in ``seed``.
    Raises EvidenceFailed where the loss is not finite.
    """
    fold = fold_of(user_ids)
    rows = np.arange(len(user_ids))
    parts = [rows, *(rows[fold != f] for f in range(FOLDS))]
    whole, *folds = (_fit(judge, asked, part, settings, seed, advance) for part in parts)
    return Heads(whole, tuple(folds))


def _fit(
    judge: Judge, asked: Asked, rows: np.ndarray, settings: Evidence, seed: int, advance: Callable[[int], object]
) -> EvidenceHead:
    torch.manual_seed(seed)
    generator = np.random.default_rng([seed, len(rows)])
    head = EvidenceHead(hidden=settings.hidden).train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=settings.learning_rate, weight_decay=WEIGHT_DECAY)
    size = settings.batch_size
    steps = settings.epochs * -(-len(rows) // size)
    done = 0
    for _ in range(settings.epochs):
        order = generator.permutation(rows)
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * (1.0 - done / steps)
            optimizer.zero_grad(set_to_none=True)
            # Of a large catalogue few users fit at once: their gradients are added up to the batch's.
            whole = _weights(judge, asked.take(batch), settings.rare).sum()
            for begin in range(0, len(batch), judge.block):
                part = asked.take(batch[begin : begin + judge.block])
                chances = F.log_softmax(judge.score(head, part), dim=1)
                terms = -chances[torch.from_numpy(part.owners), torch.from_numpy(part.targets)]
                loss = (terms * torch.from_numpy(_weights(judge, part, settings.rare)).float()).sum() / float(whole)
                if not torch.isfinite(loss):
                    raise EvidenceFailed(
                        f"the evidence's loss is {loss.item()} after {done} steps; lower tower.evidence.learning_rate"
                    )
                loss.backward()
            nn.utils.clip_grad_norm_(head.parameters(), CLIP)
            optimizer.step()
            done += 1
            advance(len(batch))
    return head.eval()


def _weights(judge: Judge, asked: Asked, rare: float) -> np.ndarray:
    """What each target [T] weighs."""
    share = 1.0 / np.diff(asked.offsets)[asked.owners]
    rarity: np.ndarray = share * (1.0 + judge.transitions.counts[asked.targets]) ** -rare
    return rarity
