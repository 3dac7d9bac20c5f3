"""Fitting the head on held-out targets, so that it learns what evidence is worth where the tower has not been told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from learn_spark.evidence.head import FOLDS, EvidenceHead, Heads, fold_of
from learn_spark.evidence.judge import Asked, Judge
from learn_spark.settings.schema import Evidence

WEIGHT_DECAY = 1e-4


def fit_heads(
    judge: Judge,
    asked: Asked,
    user_ids: Sequence[str],
    settings: Evidence,
    *,
    seed: int,
    advance: Callable[[int], object] = lambda count: None,
) -> Heads:
    """Heads of the targets of ``asked``: softmax cross-entropy over the catalogue, every target one term, AdamW with a
    linearly falling rate. A target of an item with n events weighs (1 + n) ^ -``settings.rare``.

    The tower must not have learnt the targets, nor ``judge.transitions`` counted them. Deterministic in ``seed``.
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
    size = min(settings.batch_size, judge.block)
    steps = settings.epochs * -(-len(rows) // size)
    done = 0
    for _ in range(settings.epochs):
        order = generator.permutation(rows)
        for start in range(0, len(order), size):
            part = asked.take(order[start : start + size])
            chances = F.log_softmax(judge.score(head, part), dim=1)
            terms = -chances[torch.from_numpy(part.owners), torch.from_numpy(part.targets)]
            weight = torch.from_numpy((1.0 + judge.transitions.counts[part.targets]) ** -settings.rare).float()
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * (1.0 - done / steps)
            optimizer.zero_grad(set_to_none=True)
            ((terms * weight).sum() / weight.sum()).backward()
            optimizer.step()
            done += 1
            advance(len(part.users))
    return head.eval()
