"""The trained models of a workspace: figures, tags, and which one is released."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import pyarrow.dataset as ds

from learn_spark.core.console import Reporter
from learn_spark.core.table_text import Cell, Column
from learn_spark.core.tables.runs import run_order
from learn_spark.core.tables.workspace import Workspace
from learn_spark.evaluation.results import MetricRow, metric_rows
from learn_spark.features.ledger import LedgerRow, ledger, release_in_force
from learn_spark.model.trained import SavedModel, trained_models

METRIC, SPLIT = "NDCG@10", "test"

# (model id, method) -> its newest row of METRIC on SPLIT.
Figures = Mapping[tuple[str, str], MetricRow]


@dataclass(frozen=True)
class TrainedModel:
    """A model and its figures. ``validation`` and ``test``: NDCG@10, with the reranker if the model has one; ``test``
    is None before an evaluation. ``tags``: released, strict or refit, reranker, blending, trial (of a search), and
    "as of TIME".
    """

    model_id: str
    method: str
    run_id: str
    trained_at: datetime
    validation: float | None
    test: float | None
    tags: tuple[str, ...]


def list_models(workspace: Workspace) -> list[TrainedModel]:
    """All models that train runs wrote and that still exist, newest first."""
    return describe_models(
        trained_models(workspace, trials=True), newest_figures(workspace), release_in_force(ledger(workspace))
    )


def describe_models(saved: Sequence[SavedModel], figures: Figures, released: LedgerRow | None) -> list[TrainedModel]:
    """The models ``saved``, in their order, with their figures and tags. ``released``: the release in force."""
    rows = []
    for one in saved:
        manifest = one.manifest
        tags = {
            "released": released is not None and released.model_id == one.model_id,
            "trial": manifest.trial,
            manifest.training_rule: manifest.training_rule != "holdout",
            "reranker": manifest.reranker is not None,
            "blending": manifest.blending is not None,
            **({} if manifest.narrowing is None else {f"{manifest.narrowing.width} numbers": True}),
            f"as of {manifest.as_of}": manifest.as_of is not None,
        }
        rows.append(
            TrainedModel(
                model_id=one.model_id,
                method=manifest.method,
                run_id=one.run.run_id,
                trained_at=one.run.started_at,
                validation=manifest.validation.get(METRIC),
                test=row.value if (row := figures.get((one.model_id, manifest.method))) else None,
                tags=tuple(tag for tag, has_it in tags.items() if has_it),
            )
        )
    return rows


def newest_figures(workspace: Workspace) -> Figures:
    """NDCG@10 on the test split of every model and method, each of its newest evaluation."""
    rows = metric_rows(workspace, (ds.field("split") == SPLIT) & (ds.field("metric") == METRIC))
    places = run_order(workspace)
    rows.sort(key=lambda row: (places.get(row.run_id, -1), row.run_id))
    return {(row.model_id, row.method): row for row in rows}


def show_models(workspace: Workspace, console: Reporter) -> None:
    """One line a model, newest first; in JSON the list of ``TrainedModel``s."""
    models = list_models(workspace)
    console.answer([asdict(model) for model in models])
    rows: list[list[Cell]] = [
        [one.model_id, one.method, one.trained_at, one.validation, one.test, ", ".join(one.tags)] for one in models
    ]
    figures = [Column(f"{split} {METRIC}", ".4f") for split in ("validation", "test")]
    console.table(
        f"Models of {workspace.place}", ["model", "method", "trained (UTC)", *figures, "tags"], rows, name="models"
    )
