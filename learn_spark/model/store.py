"""A trained tower on disk: manifest.json (model/manifest.py) and files of weights.

model.safetensors has the tower's weights. before_refit.safetensors has the weights that validation chose, where the
tower was refitted with the validation events (training.refit); validation is ranked with these. blending.safetensors
has the weights by item frequency and the items' counts. narrowing.safetensors has the projections to fewer numbers.
reranker.safetensors has the reranker's heads; co-visits are counted in the histories that are ranked.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from learn_spark.core.settings import Settings, save_settings
from learn_spark.core.storage.files import give_usual_mode
from learn_spark.core.storage.folders import new_folder
from learn_spark.core.storage.path import StoragePath, storage_path
from learn_spark.core.tables.workspace import Workspace
from learn_spark.model.blending.frequency_weights import FrequencyWeights
from learn_spark.model.blending.tower import BlendedTower
from learn_spark.model.manifest import (
    BEFORE_REFIT,
    BLENDING,
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
from learn_spark.model.narrowing.projections import NarrowedTower, Projections
from learn_spark.model.reranking.head import CrossFittedHeads
from learn_spark.model.towers.bound import BoundTower
from learn_spark.model.towers.registry import shape_of, tower_of_shape
from learn_spark.model.towers.tower import Tower
from learn_spark.model.weights import module_with, tensors_of


@dataclass(frozen=True)
class ModelReranker:
    """A model's reranker: its heads, the transitions' ``reach`` and ``decay``, and the tower's temperature.

    Co-visits are counted for at most ``pair_users`` users (None: for all).
    """

    heads: CrossFittedHeads
    reach: int
    decay: float
    temperature: float
    pair_users: int | None = None


@dataclass(frozen=True)
class ModelBlending:
    """How content, co-visits and popularity are blended into a model's vectors.

    ``frequency_weights`` were fitted on all validation users, ``folds[f]`` on those of other folds than f. ``counts``
    [N]: training events per item. ``temperature``: of the tower. ``reach``: number of recent events averaged, each
    weighed by ``decay`` ^ (number of later events). ``co_visits`` [N, S]: the items' vectors of co-visits in the same
    events, None without them. ``recent`` [N]: their events in the last days of training, None where the trend is not
    blended. ``profile``: whether users' profiles are.
    """

    frequency_weights: FrequencyWeights
    folds: tuple[FrequencyWeights, ...]
    counts: np.ndarray
    reach: int
    temperature: float
    co_visits: np.ndarray | None = None
    decay: float = 1.0
    recent: np.ndarray | None = None
    profile: bool = False

    def upon(self, tower: Tower, fold: int | None = None) -> BlendedTower:
        """``tower``, with content bound, blended by the weights of all users, or by those that may rank the users of
        ``fold``.
        """
        assert isinstance(tower, BoundTower)
        frequency_weights = self.frequency_weights if fold is None else self.folds[fold]
        return BlendedTower(
            tower,
            frequency_weights,
            self.counts,
            temperature=self.temperature,
            reach=self.reach,
            decay=self.decay,
            co_visits=self.co_visits,
            recent=self.recent,
            profile=self.profile,
        )

    def tensors(
        self, counts: np.ndarray, co_visits: np.ndarray | None = None, recent: np.ndarray | None = None
    ) -> dict[str, torch.Tensor]:
        """The content of blending.safetensors.

        ``counts`` [N], ``co_visits`` [N, S] and ``recent`` [N] are of the events that the saved tower was trained on;
        those of ``self`` are from before a refit.
        """
        weights = (self.frequency_weights, *self.folds)
        by_setting = {
            "co_visits": co_visits,
            "co_visits_before_refit": self.co_visits,
            "recent": recent,
            "recent_before_refit": self.recent,
        }
        return {
            **{name: torch.tensor(values) for name, values in by_setting.items() if values is not None},
            "frequency_weights": torch.from_numpy(np.stack([fold_weights.weights for fold_weights in weights])),
            # Copies, because safetensors rejects tensors that share memory.
            "counts": torch.tensor(counts),
            "counts_before_refit": torch.tensor(self.counts),
        }


@dataclass(frozen=True)
class ModelNarrowing:
    """How a model's vectors are made narrower.

    ``released`` belongs to the weights that are released, ``folds[f]`` to those that validation chose, blended by
    weights that may rank the users of fold f. ``released`` is None where other weights were loaded (``load_model``).
    """

    released: Projections | None
    folds: tuple[Projections, ...]

    def upon(self, vectors: Tower, fold: int | None = None) -> NarrowedTower:
        """``vectors``, blended where the model has blending (for ``fold``), made narrower."""
        projections = self.released if fold is None else self.folds[fold]
        if projections is None:
            raise ValueError("the weights of before a refit have projections by fold alone")
        return NarrowedTower(vectors, projections)


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
        vectors = self.tower if self.blending is None else self.blending.upon(self.tower, fold)
        return vectors if self.narrowing is None else self.narrowing.upon(vectors, fold)

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
    before_refit: Mapping[str, torch.Tensor] | None = None,
    blending: Mapping[str, torch.Tensor] | None = None,
    heads: CrossFittedHeads | None = None,
    narrowing: Sequence[Projections] | None = None,
) -> str:
    """Write the model folder atomically, with a copy of the folder ``logs``; returns the model id.

    The id is a hash of the manifest, which has the hashes of all weights. ``before_refit`` are the weights that
    validation chose, where ``tower`` was refitted; ``blending`` is the result of ModelBlending.tensors;
    ``narrowing`` are the projections that are released, and those of each fold.
    """
    weights: dict[str, Mapping[str, torch.Tensor] | None] = {
        WEIGHTS: tower.state_dict(),
        BEFORE_REFIT: before_refit,
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
        text = json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True)
        model_id = hashlib.sha256(text.encode()).hexdigest()[:16]
        (temporary / MANIFEST).write_text(text, encoding="utf-8")
        lines = "".join(json.dumps(point, sort_keys=True) + "\n" for point in curve)
        (temporary / "training.jsonl").write_text(lines, encoding="utf-8")
        save_settings(settings, temporary)
        if logs is not None and logs.is_dir():
            shutil.copytree(logs, temporary / "logs")
        folder.appear(model_id, MANIFEST)
    return model_id


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


def _tensors(folder: StoragePath, name: str, manifest: ModelManifest) -> dict[str, torch.Tensor]:
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
    heads = CrossFittedHeads.of_tensors(_tensors(folder, RERANKER, manifest), hidden=facts.hidden)
    temperature = _temperature(manifest, before_refit=before_refit)
    return ModelReranker(heads, facts.reach, facts.decay, temperature, facts.pair_users)


def read_curve(folder: StoragePath) -> list[Point]:
    """The learning curve: one point per epoch."""
    lines = (folder / "training.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
