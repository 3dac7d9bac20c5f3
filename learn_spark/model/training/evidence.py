"""Evidence for a tower that validation has chosen: heads fitted on the validation targets, and what they are worth."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from learn_spark.core.console import Reporter
from learn_spark.core.settings import Settings
from learn_spark.core.settings.tower import RerankerSettings
from learn_spark.data.splits.split import split_histories, training_events
from learn_spark.model.reranking.co_visitation import Transitions
from learn_spark.model.reranking.fit import fit_heads, passes
from learn_spark.model.reranking.head import CrossFittedHeads
from learn_spark.model.reranking.reranker import Reranker
from learn_spark.model.scoring.metrics import summarise
from learn_spark.model.scoring.queries import query_batch
from learn_spark.model.towers.tower import Tower
from learn_spark.model.towers.vectors import user_vectors


@dataclass(frozen=True)
class FittedReranker:
    """``validation`` are metrics of the validation split, every user judged by a head fitted on others."""

    heads: CrossFittedHeads
    validation: dict[str, float]


def fit_reranker(
    tower: Tower,
    temperature: float,
    histories: pa.Table,
    wanted: RerankerSettings,
    settings: Settings,
    console: Reporter,
) -> FittedReranker:
    """Heads for ``tower``, which must not have learnt the validation events of ``histories``; nor have the counts."""
    values, offsets = training_events(histories)
    transitions = Transitions.of(values, offsets, tower.n_items, reach=wanted.reach, decay=wanted.decay)
    split = split_histories(histories, "validation")
    users = user_vectors(tower, split.items, split.lengths, settings.objective.history, times=split.times)
    queries = query_batch(split, users, split.hidden(settings.evaluation.mask_history), wanted.reach)
    reranker = Reranker.of(tower, temperature, transitions)
    with console.bar("fitting evidence", passes(len(users), wanted) * len(users), "users") as bar:
        heads = fit_heads(reranker, queries, split.user_ids, wanted, seed=settings.training.seed, advance=bar.advance)
    every = split.every_target
    ranks = reranker.cross_fitted_ranks(heads.heads_of_users(split.user_ids, folded=True), queries)
    ks = sorted({10, *settings.evaluation.ks})
    return FittedReranker(heads, summarise(ranks, ks, every.offsets))
