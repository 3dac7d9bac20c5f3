"""Towers of saved models, which are used again where only what is fitted upon a tower has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from learn_spark.core.settings import Settings
from learn_spark.core.settings.load import section_values
from learn_spark.core.stages.code import code_version
from learn_spark.core.stages.registry import find_stage
from learn_spark.core.storage.folders import download
from learn_spark.core.tables.workspace import Workspace
from learn_spark.model.manifest import ModelError, read_manifest
from learn_spark.model.store import both_weights, read_curve
from learn_spark.model.trained import model_folders
from learn_spark.model.training.twice import TrainedTower

FITTED_UPON = ("blending", "narrowing", "reranker")
LOGS = "logs"


def key_of_tower(settings: Settings, inputs: Mapping[str, str]) -> str:
    """Identifies the weights of a tower (16 hex digits): by the versions ``inputs`` of its tables, the code that trains
    towers, and the settings of stage train except those of the parts that are fitted upon a trained tower.
    """
    values = section_values(settings, find_stage("train").sections)
    values["tower"] = {name: value for name, value in values["tower"].items() if name not in FITTED_UPON}
    plan = {"settings": values, "inputs": dict(inputs), "code": code_version("learn_spark.model.training.twice")}
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]


def saved_tower(workspace: Workspace, key: str) -> tuple[TrainedTower, str] | None:
    """(the tower of ``key``, the newest saved model that has it); None where there is none that can be read."""
    for model_id, _, folder in model_folders(workspace):
        try:
            facts = read_manifest(folder)
            if facts.tower_key != key:
                continue
            chosen, final = both_weights(folder, facts)
            curve = read_curve(folder)
        except (ModelError, OSError, ValueError):
            continue  # damaged or of another format: the tower is trained anew
        if len(curve) == facts.epochs:
            return TrainedTower(chosen, final, curve, facts.best_epoch, facts.temperature, 0), model_id
    return None


def fetch_logs(workspace: Workspace, model_id: str, folder: Path) -> None:
    """Copy the training logs of a model to ``folder``."""
    logs = workspace.place / "models" / model_id / LOGS
    for entry in logs.files():
        download(entry.path, folder / entry.path[len(logs) + 1 :])
