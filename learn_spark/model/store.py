"""A trained tower on disk: model.safetensors (weights and whitening) + manifest.json (what inference must know).

A tower that was trained anew after validation had chosen (training.refit) has the chosen one's weights beside it, in
chosen.safetensors: what validation is judged with. One whose vectors hold content and popularity too has levels and
its items' counts in fusion.safetensors. One with evidence of co-occurrence has its heads in evidence.safetensors; the
counts are those of the histories it is asked about.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save_file

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings import Settings, save_settings
from learn_spark.core.tables.workspace import Workspace
from learn_spark.model.blending.frequency_weights import FrequencyWeights
from learn_spark.model.blending.tower import BlendedTower
from learn_spark.model.reranking.head import CrossFittedHeads
from learn_spark.model.towers.bound import BoundTower
from learn_spark.model.towers.registry import shape_of, tower_of_shape
from learn_spark.model.towers.tower import Tower

FORMAT = 2
WEIGHTS, CHOSEN, EVIDENCE = "model.safetensors", "chosen.safetensors", "evidence.safetensors"
FUSION = "fusion.safetensors"


class ModelError(LearnSparkError):
    """A model folder that is missing, damaged or of another format."""


@dataclass(frozen=True)
class ModelEvidence:
    """How a model reads co-occurrence: its heads, the transitions' ``reach`` and ``decay``, the tower's temperature."""

    heads: CrossFittedHeads
    reach: int
    decay: float
    temperature: float


@dataclass(frozen=True)
class ModelBlending:
    """How content and popularity are blended into a model's vectors.

    ``frequency_weights`` were fitted on all validation users, ``folds[f]`` on those of other folds than f. ``counts``
    [N]: training events per item. ``temperature``: of the tower. ``reach``: number of recent events averaged.
    """

    frequency_weights: FrequencyWeights
    folds: tuple[FrequencyWeights, ...]
    counts: np.ndarray
    reach: int
    temperature: float

    def upon(self, tower: Tower, fold: int | None = None) -> BlendedTower:
        """``tower``, content bound, with the levels of all, or those that may judge the users of ``fold``."""
        assert isinstance(tower, BoundTower)
        frequency_weights = self.frequency_weights if fold is None else self.folds[fold]
        return BlendedTower(tower, frequency_weights, self.counts, temperature=self.temperature, reach=self.reach)


@dataclass(frozen=True)
class Model:
    """A tower ready for inference (one over content once it is bound: model.content) and its manifest."""

    model_id: str
    tower: Tower
    manifest: dict[str, Any]
    blending: ModelBlending | None = None
    reranker: ModelEvidence | None = None

    def vectors(self) -> Tower:
        """What is released and searched: the tower itself, or with fusion upon it, once content is bound."""
        return self.tower if self.blending is None else self.blending.upon(self.tower)

    @property
    def method(self) -> str:
        """Which kind of tower it is."""
        return self.tower.method

    @property
    def window(self) -> int:
        """Events of a history that the user tower sees."""
        return int(self.manifest["window"])

    @property
    def refit(self) -> bool:
        """Whether it was trained anew on the validation events too; its figures on validation would be too good."""
        return bool(self.manifest.get("chosen_weights"))


def save_model(
    workspace: Workspace,
    tower: Tower,
    manifest: dict[str, Any],
    curve: list[dict[str, Any]],
    settings: Settings,
    *,
    logs: Path | None = None,
    chosen: dict[str, torch.Tensor] | None = None,
    fusion: Mapping[str, torch.Tensor] | None = None,
    heads: CrossFittedHeads | None = None,
) -> str:
    """Write the model folder atomically, with a copy of the folder ``logs``; returns the model id (a hash of weights
    and manifest). ``chosen`` are the weights that validation chose, where ``tower`` was trained anew. Of ``fusion``
    (FittedBlending.tensors) the manifest has the rest in "fusion" (reach, temperature, chosen_temperature), of
    ``heads`` in "evidence" (these, decay and hidden).
    """
    tensors = {name: tensor.contiguous() for name, tensor in tower.state_dict().items()}
    models = workspace.folder("models")
    temporary = models / f".new.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        save_file(tensors, temporary / WEIGHTS)
        full = {"format": FORMAT, "shape": shape_of(tower), **manifest}
        if chosen is not None:
            save_file({name: tensor.contiguous() for name, tensor in chosen.items()}, temporary / CHOSEN)
            full["chosen_weights"] = hashlib.sha256((temporary / CHOSEN).read_bytes()).hexdigest()
        for name, beside in {FUSION: fusion, EVIDENCE: None if heads is None else heads.tensors()}.items():
            if beside is not None:
                save_file({key: tensor.contiguous() for key, tensor in beside.items()}, temporary / name)
                full[_hash_of(name)] = hashlib.sha256((temporary / name).read_bytes()).hexdigest()
        text = json.dumps(full, indent=1, sort_keys=True)
        weights = hashlib.sha256((temporary / WEIGHTS).read_bytes()).hexdigest()
        model_id = hashlib.sha256(f"{weights}\n{text}".encode()).hexdigest()[:16]
        (temporary / "manifest.json").write_text(text, encoding="utf-8")
        (temporary / "weights.sha256").write_text(weights, encoding="utf-8")
        lines = "".join(json.dumps(point, sort_keys=True) + "\n" for point in curve)
        (temporary / "training.jsonl").write_text(lines, encoding="utf-8")
        save_settings(settings, temporary)
        if logs is not None and logs.is_dir():
            shutil.copytree(logs, temporary / "logs")
        if not (models / model_id).exists():
            temporary.rename(models / model_id)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return model_id


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the model in ``folder`` says of itself; ModelError where it says nothing."""
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ModelError(f"{folder} is not a whole model folder: {error}") from None
    return manifest


def load_model(folder: Path, *, chosen: bool = False) -> Model:
    """The model in ``folder``; ``chosen``: as validation chose it, where it was trained anew afterwards.

    ModelError where a file is missing or its weights are not the ones it was saved with.
    """
    manifest = read_manifest(folder)
    try:
        expected = (folder / "weights.sha256").read_text(encoding="utf-8")
        name = CHOSEN if chosen and manifest.get("chosen_weights") else WEIGHTS
        content = (folder / name).read_bytes()
    except OSError as error:
        raise ModelError(f"{folder} is not a whole model folder: {error}") from None
    if hashlib.sha256(content).hexdigest() != (expected if name == WEIGHTS else manifest["chosen_weights"]):
        raise ModelError(f"{folder / name} is damaged: its hash is not the one it was saved with")
    if manifest.get("format") != FORMAT:
        raise ModelError(f"{folder} has the format {manifest.get('format')}, this version reads {FORMAT}")
    tower = tower_of_shape(manifest["shape"])
    tower.load_state_dict(load(content))
    fusion, evidence = _load_fusion(folder, manifest, chosen=chosen), _load_evidence(folder, manifest, chosen=chosen)
    return Model(folder.name, tower.eval(), manifest, fusion, evidence)


def _hash_of(name: str) -> str:
    """Where the manifest has the hash of a file beside the weights."""
    return f"{name.removesuffix('.safetensors')}_weights"


def _load_beside(folder: Path, name: str, manifest: dict[str, Any]) -> dict[str, torch.Tensor]:
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise ModelError(f"{folder} is not a whole model folder: {error}") from None
    if hashlib.sha256(content).hexdigest() != manifest[_hash_of(name)]:
        raise ModelError(f"{folder / name} is damaged: its hash is not the one it was saved with")
    return load(content)


def _load_fusion(folder: Path, manifest: dict[str, Any], *, chosen: bool) -> ModelBlending | None:
    if "fusion" not in manifest:
        return None
    told, found = manifest["fusion"], _load_beside(folder, FUSION, manifest)
    frequency_weights, *folds = (FrequencyWeights(weights) for weights in found["levels"].numpy())
    counts = found["chosen_counts" if chosen else "counts"].numpy()
    return ModelBlending(frequency_weights, tuple(folds), counts, told["reach"], _temperature(told, chosen=chosen))


def _load_evidence(folder: Path, manifest: dict[str, Any], *, chosen: bool) -> ModelEvidence | None:
    if "evidence" not in manifest:
        return None
    told = manifest["evidence"]
    heads = CrossFittedHeads.of_tensors(_load_beside(folder, EVIDENCE, manifest), hidden=told["hidden"])
    return ModelEvidence(heads, told["reach"], told["decay"], _temperature(told, chosen=chosen))


def _temperature(told: dict[str, Any], *, chosen: bool) -> float:
    return float(told["chosen_temperature" if chosen else "temperature"])


def read_curve(folder: Path) -> list[dict[str, Any]]:
    """The learning curve: one point an epoch."""
    lines = (folder / "training.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
