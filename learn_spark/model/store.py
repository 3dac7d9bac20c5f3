"""A trained tower on disk: manifest.json (model/manifest.py) and files of weights.

model.safetensors has the tower's weights. before_refit.safetensors has the weights that validation chose, where the
tower was refitted with the validation events (training.rule refit); validation is ranked with these. chosen.safetensors
has the chosen weights under rule strict, whose second training reads no validation event; nothing is ranked with these.
blending.safetensors has the weights by item frequency and the items' counts. narrowing.safetensors has the projections
to fewer numbers. reranker.safetensors has the reranker's heads; co-visits are counted in the histories that are ranked.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from learn_spark.core.settings import Settings, save_settings
from learn_spark.core.storage.files import give_usual_mode
from learn_spark.core.storage.folders import new_folder
from learn_spark.core.storage.path import StoragePath, storage_path
from learn_spark.core.tables.workspace import Workspace
from learn_spark.model.blending.frequency_weights import FrequencyWeights
from learn_spark.model.manifest import (
    BEFORE_REFIT,
    BLENDING,
    CHOSEN,
    FORMAT,
    MANIFEST,
    NARROWING,
    RERANKER,
    WEIGHTS,
    ModelError,
    ModelManifest,
    Point,
    TrainingFacts,
    read_manifest,
)
from learn_spark.model.narrowing.projections import Projections
from learn_spark.model.parts import ModelBlending, ModelNarrowing, ModelReranker, wide_vectors
from learn_spark.model.reranking.head import CrossFittedHeads
from learn_spark.model.towers.registry import shape_of, tower_of_shape
from learn_spark.model.towers.tower import Tower
from learn_spark.model.weights import Weights, module_with, tensors_of


@dataclass(frozen=True)
class Model:
    """A tower ready for inference (with content: once it is bound, see model.content) and its manifest."""

    model_id: str
    tower: Tower
    manifest: ModelManifest
    blending: ModelBlending | None = None
    reranker: ModelReranker | None = None
    narrowing: ModelNarrowing | None = None

    def vectors(self, fold: int | None = None) -> Tower:
        """The tower whose vectors are released and searched: the tower itself, or blended and made narrower, once
        content is bound. With ``fold``, what was fitted on the users of that fold has no part in them.
        """
        vectors = wide_vectors(self.tower, self.blending, fold)
        return vectors if self.narrowing is None else self.narrowing.upon(vectors, fold)

    def reranked_vectors(self, fold: int | None = None) -> Tower:
        """The tower whose vectors the reranker reads: blended where it was fitted so, and as wide as they are."""
        blended = self.reranker is not None and self.reranker.blended
        return wide_vectors(self.tower, self.blending if blended else None, fold)

    @property
    def folded(self) -> bool:
        """Whether ``vectors`` of a fold differ from those of all users."""
        return self.blending is not None or self.narrowing is not None

    @property
    def method(self) -> str:
        """The kind of tower."""
        return self.tower.method

    @property
    def window(self) -> int:
        """Number of events of a history that the user tower reads."""
        return self.manifest.window

    @property
    def refit(self) -> bool:
        """Whether it was refitted on training and validation events; then its validation figures would be too good."""
        return self.manifest.refit


def save_model(
    workspace: Workspace,
    tower: Tower,
    facts: TrainingFacts,
    curve: Sequence[Point],
    settings: Settings,
    *,
    logs: Path | None = None,
    chosen: Mapping[str, torch.Tensor] | None = None,
    blending: Mapping[str, torch.Tensor] | None = None,
    heads: CrossFittedHeads | None = None,
    narrowing: Sequence[Projections] | None = None,
) -> str:
    """Write the model folder atomically, with a copy of the folder ``logs``; returns the model id.

    The id is a hash of the manifest without its ``tower_key``; the manifest has the hashes of all weights. ``chosen``
    are the weights that the first training chose, where ``tower`` was trained again; ``blending`` is the result of
    ModelBlending.tensors; ``narrowing`` are the projections that are released, and those of each fold.
    """
    weights: dict[str, Mapping[str, torch.Tensor] | None] = {
        WEIGHTS: tower.state_dict(),
        CHOSEN if facts.rule == "strict" else BEFORE_REFIT: chosen,
        BLENDING: blending,
        NARROWING: None if narrowing is None else Projections.tensors(narrowing),
        RERANKER: None if heads is None else heads.tensors(),
    }
    with new_folder(workspace.place / "models", workspace.scratch) as folder:
        temporary = folder.path
        files = {}
        for name, tensors in weights.items():
            if tensors is not None:
                save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, temporary / name)
                give_usual_mode(temporary / name)
                files[name] = hashlib.sha256((temporary / name).read_bytes()).hexdigest()
        manifest = ModelManifest(format=FORMAT, shape=shape_of(tower), files=files, **dict(facts))
        (temporary / MANIFEST).write_text(_as_text(manifest), encoding="utf-8")
        # Without tower_key: another version of the training's code that gives the same weights makes the same model.
        model_id = hashlib.sha256(_as_text(manifest, exclude={"tower_key"}).encode()).hexdigest()[:16]
        lines = "".join(json.dumps(point, sort_keys=True) + "\n" for point in curve)
        (temporary / "training.jsonl").write_text(lines, encoding="utf-8")
        save_settings(settings, temporary)
        if logs is not None and logs.is_dir():
            shutil.copytree(logs, temporary / "logs")
        folder.appear(model_id, MANIFEST)
    return model_id


def _as_text(manifest: ModelManifest, exclude: set[str] | None = None) -> str:
    return json.dumps(manifest.model_dump(mode="json", exclude=exclude), indent=1, sort_keys=True)


def load_model(where: StoragePath | Path, *, before_refit: bool = False) -> Model:
    """The model in the folder ``where``; with ``before_refit``, the weights that validation chose before the refit.

    Raises ModelFormatError for a model of another format, and ModelError where a file is missing, its hash differs
    from the manifest's, or the weights are not those of the manifest's shape.
    """
    folder = storage_path(where)
    manifest = read_manifest(folder)
    weights = _tensors(folder, BEFORE_REFIT if before_refit and manifest.refit else WEIGHTS, manifest)
    try:
        tower = module_with(lambda: tower_of_shape(manifest.shape), manifest.shape, weights)
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise ModelError(f"{folder / MANIFEST} does not fit the weights: {error}; train again") from None
    return Model(
        folder.name,
        tower.eval(),
        manifest,
        _blending(folder, manifest, before_refit=before_refit),
        _reranker(folder, manifest, before_refit=before_refit),
        _narrowing(folder, manifest, before_refit=before_refit),
    )


def both_weights(folder: StoragePath, manifest: ModelManifest) -> tuple[Weights, Weights]:
    """(the weights that the first training chose, those of the last training) of the tower in ``folder``.

    Raises ModelError where a file is missing or its hash differs from the manifest's.
    """
    final = _tensors(folder, WEIGHTS, manifest)
    first = next((name for name in (BEFORE_REFIT, CHOSEN) if name in manifest.files), None)
    return final if first is None else _tensors(folder, first, manifest), final


def _tensors(folder: StoragePath, name: str, manifest: ModelManifest) -> Weights:
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise ModelError(f"{folder} is not a complete model folder: {error}; train again") from None
    if hashlib.sha256(content).hexdigest() != manifest.files.get(name):
        raise ModelError(f"{folder / name} is damaged: its hash differs from the manifest's; train again")
    try:
        return tensors_of(content)
    except ValueError as error:
        raise ModelError(f"{folder / name} is damaged: {error}; train again") from None


def _temperature(manifest: ModelManifest, *, before_refit: bool) -> float:
    return manifest.temperature_before_refit if before_refit else manifest.temperature


def _blending(folder: StoragePath, manifest: ModelManifest, *, before_refit: bool) -> ModelBlending | None:
    if manifest.blending is None:
        return None
    tensors = _tensors(folder, BLENDING, manifest)
    frequency_weights, *folds = (FrequencyWeights(weights) for weights in tensors["frequency_weights"].numpy())
    suffix = "_before_refit" if before_refit else ""
    co_visits, recent = (
        None if (values := tensors.get(f"{name}{suffix}")) is None else values.numpy()
        for name in ("co_visits", "recent")
    )
    return ModelBlending(
        frequency_weights,
        tuple(folds),
        tensors[f"counts{suffix}"].numpy(),
        manifest.blending.reach,
        _temperature(manifest, before_refit=before_refit),
        co_visits,
        manifest.blending.decay,
        recent,
        manifest.blending.profile,
    )


def _narrowing(folder: StoragePath, manifest: ModelManifest, *, before_refit: bool) -> ModelNarrowing | None:
    if manifest.narrowing is None:
        return None
    released, *folds = Projections.of_tensors(_tensors(folder, NARROWING, manifest))
    return ModelNarrowing(None if before_refit and manifest.refit else released, tuple(folds))


def _reranker(folder: StoragePath, manifest: ModelManifest, *, before_refit: bool) -> ModelReranker | None:
    if (facts := manifest.reranker) is None:
        return None
    refining = None
    if facts.refining_hidden is not None and facts.refined_items is not None:
        refining = (facts.refining_hidden, facts.refined_items)
    heads = CrossFittedHeads.of_tensors(_tensors(folder, RERANKER, manifest), hidden=facts.hidden, refining=refining)
    temperature = _temperature(manifest, before_refit=before_refit)
    return ModelReranker(heads, facts.reach, facts.decay, temperature, facts.pair_users, facts.blended)


def read_curve(folder: StoragePath) -> list[Point]:
    """The learning curve: one point per epoch."""
    lines = (folder / "training.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
