"""The trained models of a workspace, by one pass over the train runs and their models' manifests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.runs import Run, all_runs
from learn_spark.core.tables.workspace import Workspace
from learn_spark.model.manifest import FORMAT, MANIFEST, ModelFormatError, ModelManifest, read_manifest


@dataclass(frozen=True)
class SavedModel:
    """A model, and the newest run that wrote it."""

    model_id: str
    run: Run
    manifest: ModelManifest


def model_folders(workspace: Workspace) -> Iterator[tuple[str, Run, StoragePath]]:
    """(id, its newest run, folder) of each model that train runs wrote and that is still there, newest first."""
    seen: set[str] = set()
    for run in reversed(all_runs(workspace)):
        model_id = run.model_id
        if run.job != "train" or run.status != "done" or model_id is None or model_id in seen:
            continue
        seen.add(model_id)
        folder = workspace.place / "models" / model_id
        if (folder / MANIFEST).is_file():
            yield model_id, run, folder


def trained_models(workspace: Workspace, *, trials: bool = False) -> list[SavedModel]:
    """The models that train runs wrote and that still exist, newest first; with ``trials``, trials of searches too.

    Models of other formats are left out. Raises ModelFormatError where all models have another format.
    """
    models: dict[str, SavedModel] = {}
    other_format = 0
    for model_id, run, folder in model_folders(workspace):
        try:
            manifest = read_manifest(folder)
        except ModelFormatError:
            other_format += 1
            continue
        if trials or not manifest.trial:
            models[model_id] = SavedModel(model_id, run, manifest)
    if other_format and not models:
        raise ModelFormatError(
            f"none of the {other_format} trained models of {workspace.place} has format {FORMAT}, which this version "
            "of learn-spark reads: learn-spark train --force makes a new one"
        )
    return list(models.values())


def newest_model(workspace: Workspace) -> SavedModel:
    """The newest trained model that is not a trial of a search. Raises LearnSparkError where there is none."""
    models = trained_models(workspace)
    if not models:
        raise LearnSparkError("there is no trained model yet; learn-spark train makes one")
    return models[0]


def require_model(workspace: Workspace, model_id: str) -> None:
    """Raise LearnSparkError, with the newest models, where no train run wrote the model or it was removed."""
    models = [model.model_id for model in trained_models(workspace, trials=True)]
    if model_id not in models:
        newest = ", ".join(models[:3]) or "none"
        raise LearnSparkError(
            f"there is no trained model {model_id!r}; the newest are {newest} (learn-spark models lists all)"
        )
