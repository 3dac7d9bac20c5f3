"""Evidence for a tower that validation has chosen: heads fitted on the validation targets, and what they are worth."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from learn_spark.core.console import Reporter
from learn_spark.core.settings import Settings
from learn_spark.core.settings.tower import RerankerSettings
from learn_spark.data.splits.cuts import cut_histories, training_events
from learn_spark.model.reranking.fit import fit_heads, passes
from learn_spark.model.reranking.head import Heads
from learn_spark.model.reranking.judge import Judge
from learn_spark.model.reranking.transitions import Transitions
from learn_spark.model.scoring.metrics import summarise
from learn_spark.model.scoring.queries import asked_on
from learn_spark.model.towers.tower import Tower
from learn_spark.model.towers.vectors import user_vectors


@dataclass(frozen=True)
class FittedEvidence:
    """``validation`` are metrics of the validation cut, every user judged by a head fitted on others."""

    heads: Heads
    validation: dict[str, float]


def fit_evidence(
    tower: Tower,
    temperature: float,
    histories: pa.Table,
    wanted: RerankerSettings,
    settings: Settings,
    report: Reporter,
) -> FittedEvidence:
    """Heads for ``tower``, which must not have learnt the validation events of ``histories``; nor have the counts."""
    values, offsets = training_events(histories)
    transitions = Transitions.of(values, offsets, tower.n_items, reach=wanted.reach, decay=wanted.decay)
    cut = cut_histories(histories, "validation")
    users = user_vectors(tower, cut.items, cut.lengths, settings.objective.history, times=cut.times)
    asked = asked_on(cut, users, cut.hidden(settings.evaluation.mask_history), wanted.reach)
    judge = Judge.of(tower, temperature, transitions)
    with report.bar("fitting evidence", passes(len(users), wanted) * len(users), "users") as bar:
        heads = fit_heads(judge, asked, cut.user_ids, wanted, seed=settings.training.seed, advance=bar.advance)
    every = cut.every_target
    ranks = judge.ranks_by(heads.judges(cut.user_ids, folded=True), asked)
    ks = sorted({10, *settings.evaluation.ks})
    return FittedEvidence(heads, summarise(ranks, ks, every.offsets))
