"""The evaluate stage: a model beside popularity, Markov and the untrained embeddings, over the whole catalogue."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from learn_spark.errors import LearnSparkError
from learn_spark.feed.item_matrix import item_matrix
from learn_spark.pipeline.stage import StageContext, StageResult
from learn_spark.retrieval.cuts import CutName, cut_histories, trained_counts, training_events
from learn_spark.retrieval.markov import markov
from learn_spark.retrieval.metrics import summarise
from learn_spark.retrieval.popularity import popularity
from learn_spark.retrieval.ranks import ranks_from_vectors
from learn_spark.retrieval.slices import slice_metrics, target_labels
from learn_spark.retrieval.vectors import item_vectors, mean_vectors, unit_rows, user_vectors
from learn_spark.settings import Settings
from learn_spark.tables.contracts import contract
from learn_spark.tables.lineage import newest_model
from learn_spark.tables.log import append_rows
from learn_spark.tables.workspace import Workspace
from learn_spark.training.content import bind_content, fit_content
from learn_spark.training.model_store import load_model

CUTS: tuple[CutName, ...] = ("validation", "test")


def other_inputs(settings: Settings, workspace: Workspace) -> dict[str, str]:
    """The newest model."""
    return {"model": newest_model(workspace)}


def run(context: StageContext) -> StageResult:
    """Rank every user's targets on both cuts with every method: metrics go to ``evaluations``, those of parts of a cut,
    with bootstrap intervals, to ``evaluation_slices``.
    """
    settings = context.settings.evaluation
    model = load_model(context.workspace.root / "models" / context.inputs["model"])
    bind_content(context, model)
    histories = context.snapshot("user_histories").to_arrow()
    content = item_matrix(fit_content(context, histories)[0])
    values, offsets = training_events(histories)
    n_items = model.tower.n_items
    popular, following = popularity(values, offsets, n_items), markov(values, offsets, n_items)
    items = item_vectors(model.tower)
    frozen = unit_rows(content)
    known, trained = np.bincount(values, minlength=n_items), trained_counts(histories, n_items)
    window = model.window
    rows: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    users_ranked = 0
    for name in CUTS:
        cut = cut_histories(histories, name)
        if not len(cut.targets):
            raise LearnSparkError(f"evaluate: no user has a target on the {name} cut")
        users_ranked += len(cut.targets)
        last = cut.items[np.arange(len(cut.targets)), cut.lengths - 1].astype(np.int64) - 1
        every = cut.every_target
        own = user_vectors(model.tower, cut.items, cut.lengths, window, times=cut.times)
        untrained = mean_vectors(frozen, cut.items, cut.lengths, window)
        ranks = {
            "popularity": popular.ranks(last, every.positions, cut.seen, offsets=every.offsets),
            "markov": following.ranks(last, every.positions, cut.seen, offsets=every.offsets),
            "frozen": ranks_from_vectors(untrained, frozen[1:], every.positions, cut.seen, offsets=every.offsets),
            model.method: ranks_from_vectors(own, items, every.positions, cut.seen, offsets=every.offsets),
        }
        told = {"run_id": context.run_id, "model_id": model.model_id, "cut": name}
        for method, found in ranks.items():
            for metric, value in summarise(found, settings.ks, every.offsets).items():
                counts = {"users": len(cut.targets), "catalogue": n_items}
                rows.append({**told, "method": method, "metric": metric, "value": value, **counts})
        labels = target_labels(cut, trained, known)
        seed = context.settings.training.seed
        found_parts = slice_metrics(
            ranks, every.positions, every.owners, labels, settings.ks, samples=settings.bootstrap_samples, seed=seed
        )
        parts += [{**told, **asdict(part)} for part in found_parts]
    append_rows(context.path("evaluation_slices"), contract("evaluation_slices"), parts)
    append_rows(context.path("evaluations"), contract("evaluations"), rows)
    return StageResult(
        rows_in=len(histories), rows_out=users_ranked, counts={"metrics": len(rows), "slice_metrics": len(parts)}
    )
