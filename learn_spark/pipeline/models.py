"""The trained models of a workspace: figures, tags, and which one is released."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from learn_spark.core.console import Reporter
from learn_spark.core.tables.lineage import all_runs
from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import ledger, release_in_force
from learn_spark.model.store import read_manifest

METRIC = "NDCG@10"


@dataclass(frozen=True)
class TrainedModel:
    """A model and its figures. ``validation`` and ``test``: NDCG@10, with the reranker if the model has one; ``test``
    is None before an evaluation. ``tags``: released, refit, reranker, blending, trial (of a search), and "as of TIME".
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
    released = release_in_force(ledger(workspace))
    tests = _test_figures(workspace)
    models: dict[str, TrainedModel] = {}
    for run in reversed(all_runs(workspace)):
        for name in run.outputs if run.job == "train" and run.status == "done" else ():
            model_id = name.removeprefix("models/")
            folder = workspace.root / "models" / model_id
            if name == model_id or model_id in models or not (folder / "manifest.json").is_file():
                continue
            manifest = read_manifest(folder)
            tags = [
                *(["released"] if released is not None and released["model_id"] == model_id else []),
                *(["trial"] if manifest.get("trial") else []),
                *(["refit"] if manifest.get("chosen_weights") else []),
                *(["reranker"] if "evidence" in manifest else []),
                *(["blending"] if "fusion" in manifest else []),
                *([f"as of {manifest['as_of']}"] if manifest.get("as_of") else []),
            ]
            models[model_id] = TrainedModel(
                model_id=model_id,
                method=str(manifest["method"]),
                run_id=run.run_id,
                trained_at=run.started_at,
                validation=manifest.get("validation", {}).get(METRIC),
                test=tests.get((model_id, str(manifest["method"]))),
                tags=tuple(tags),
            )
    return list(models.values())


def _test_figures(workspace: Workspace) -> dict[tuple[str, str], float]:
    """(model id, method) -> NDCG@10 on the test split, of the newest evaluation."""
    rows = [r for r in read_rows(workspace.table("evaluations")) if (r["split"], r["metric"]) == ("test", METRIC)]
    return {(r["model_id"], r["method"]): r["value"] for r in sorted(rows, key=lambda r: str(r["run_id"]))}


def show_models(workspace: Workspace, console: Reporter) -> None:
    """One line a model, newest first."""
    rows = [
        [
            one.model_id,
            one.method,
            f"{one.trained_at:%Y-%m-%d %H:%M}",
            "" if one.validation is None else f"{one.validation:.4f}",
            "" if one.test is None else f"{one.test:.4f}",
            ", ".join(one.tags),
        ]
        for one in list_models(workspace)
    ]
    columns = ["model", "method", "trained (UTC)", f"validation {METRIC}", f"test {METRIC}", "tags"]
    console.table(f"Models of {workspace.root}", columns, rows)
