"""The evaluate stage: a model beside popularity, Markov and the untrained embeddings, over the whole catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from learn_spark.errors import LearnSparkError
from learn_spark.feed.item_matrix import item_matrix
from learn_spark.pipeline.stage import StageContext, StageResult
from learn_spark.retrieval.cuts import Cut, CutName, cut_histories, training_events
from learn_spark.retrieval.markov import Markov
from learn_spark.retrieval.metrics import summarise
from learn_spark.retrieval.popularity import Popularity
from learn_spark.retrieval.ranks import ranks_from_scores, ranks_from_vectors
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
    """Rank every user's target on both cuts with every method, and append the metrics to ``evaluations``."""
    settings = context.settings.evaluation
    model = load_model(context.workspace.root / "models" / context.inputs["model"])
    bind_content(context, model)
    histories = context.snapshot("user_histories").to_arrow()
    content = item_matrix(fit_content(context, histories)[0])
    values, offsets = training_events(histories)
    n_items = model.tower.n_items
    popularity, markov = Popularity.fit(values, offsets, n_items), Markov.fit(values, offsets, n_items)
    items = item_vectors(model.tower)
    frozen = unit_rows(content)
    depth = max(settings.ks)

    def dense(cut: Cut, scores: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        parts = [
            ranks_from_scores(scores(rows), cut.targets[rows], [cut.seen[i] for i in rows])
            for rows in _slices(len(cut.targets), settings.batch_users)
        ]
        return np.concatenate(parts)

    def near(cut: Cut, users: np.ndarray, catalogue: np.ndarray) -> np.ndarray:
        return ranks_from_vectors(users, catalogue, cut.targets, cut.seen, depth=depth, batch=settings.batch_users)

    rows = []
    users_ranked = 0
    for name in CUTS:
        cut = cut_histories(histories, name)
        if not len(cut.targets):
            raise LearnSparkError(f"evaluate: no user has a target on the {name} cut")
        users_ranked += len(cut.targets)
        last = cut.items[np.arange(len(cut.targets)), cut.lengths - 1].astype(np.int64) - 1
        window = model.window
        ranks = {
            "popularity": dense(cut, lambda at: popularity.scores(len(at))),
            "markov": dense(cut, lambda at, last=last: markov.scores(last[at])),  # type: ignore[misc]
            "frozen": near(cut, mean_vectors(frozen, cut.items, cut.lengths, window), frozen[1:]),
            model.method: near(cut, user_vectors(model.tower, cut.items, cut.lengths, window, times=cut.times), items),
        }
        for method, found in ranks.items():
            for metric, value in summarise(found, settings.ks).items():
                rows.append(
                    {
                        "run_id": context.run_id,
                        "model_id": model.model_id,
                        "method": method,
                        "cut": name,
                        "metric": metric,
                        "value": value,
                        "users": len(found),
                        "catalogue": n_items,
                    }
                )
    append_rows(context.path("evaluations"), contract("evaluations"), rows)
    return StageResult(rows_in=len(histories), rows_out=users_ranked, counts={"metrics": len(rows)})


def _slices(total: int, size: int) -> Iterator[np.ndarray]:
    for start in range(0, total, size):
        yield np.arange(start, min(start + size, total))
