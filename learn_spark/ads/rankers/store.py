"""Trained rankers on disk, without pickle: rankings/<run_id>/ has files shared by all rankers, and a folder for each.

manifest.json: fields, split, the releases' tower; vocabularies.parquet; <variant>-<seed>/ with manifest.json and
model.safetensors (networks) or model.txt (LightGBM's own text) with frequencies.safetensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file

from learn_spark.ads.inputs.split import Split
from learn_spark.ads.inputs.vocabulary import Vocabulary, read_vocabularies, write_vocabularies
from learn_spark.ads.rankers.calibration import UNCHANGED, Calibration
from learn_spark.ads.rankers.fit import logits_of
from learn_spark.ads.rankers.inputs import Inputs
from learn_spark.ads.rankers.network import Network, Shape
from learn_spark.ads.rankers.trees import TreeInputs, Trees, tree_logits
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings import Settings, save_settings
from learn_spark.core.storage.files import give_usual_mode
from learn_spark.core.storage.folders import new_folder
from learn_spark.core.storage.path import StoragePath, storage_path
from learn_spark.core.tables.runs import all_runs
from learn_spark.core.tables.workspace import Workspace
from learn_spark.model.weights import module_with, tensors_of

FORMAT = 5
FOLDER, MANIFEST, VOCABULARIES = "rankings", "manifest.json", "vocabularies.parquet"
WEIGHTS, TREES, FREQUENCIES = "model.safetensors", "model.txt", "frequencies.safetensors"
WITH_FEATURES = frozenset({"learn", "learn-adaptor", "gbdt-learn"})


class RankerError(LearnSparkError):
    """A saved ranker is missing, damaged, of another format, or does not fit the exposures to score."""


@dataclass(frozen=True)
class Ranker:
    """One trained model: ``network``, or ``trees``. ``training`` is the course of its training,
    ``calibration`` what its logits become probabilities by.
    """

    variant: str
    model: str
    seed: int
    training: Mapping[str, Any]
    network: Network | None = None
    trees: Trees | None = None
    calibration: Calibration = UNCHANGED

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.variant}-{self.seed}"

    @property
    def reads_features(self) -> bool:
        """Whether it reads released vectors."""
        return self.variant in WITH_FEATURES

    @property
    def ranker_id(self) -> str:
        """A hash of weights, variant, model, seed, shape, training and calibration."""
        return hashlib.sha256(self._content() + self._text().encode()).hexdigest()[:16]

    def score(self, inputs: Inputs) -> np.ndarray:
        """Predicted probabilities of conversion [n] float64, calibrated."""
        return self.calibration.probabilities(self.logits(inputs), inputs.counts)

    def logits(self, inputs: Inputs) -> np.ndarray:
        """The model's logits of conversion [n] float64, before calibration."""
        if self.network is not None:
            return logits_of(self.network, inputs)
        assert self.trees is not None
        return tree_logits(self.trees, inputs)

    def _content(self) -> bytes:
        if self.trees is not None:
            frequencies = sorted(self.trees.inputs.frequencies.items())
            return self.trees.text.encode() + b"".join(seen.tobytes() for _, seen in frequencies)
        assert self.network is not None
        state = sorted(self.network.state_dict().items())
        return b"".join(name.encode() + tensor.contiguous().numpy().tobytes() for name, tensor in state)

    def _text(self) -> str:
        shape = None if self.network is None else self.network.shape.to_dict()
        identity: dict[str, Any] = {"variant": self.variant, "model": self.model, "seed": self.seed, "shape": shape}
        identity["calibration"] = asdict(self.calibration)
        if self.trees is not None:
            made = self.trees.inputs
            identity["trees"] = {"rate": made.rate, "without": list(made.without), "features": list(made.features)}
        return json.dumps({**identity, "training": dict(self.training)}, indent=1, sort_keys=True)

    def write(self, folder: Path) -> None:
        """Create ``folder`` with the model and its manifest."""
        folder.mkdir()
        if self.network is not None:
            save_file({k: v.contiguous() for k, v in self.network.state_dict().items()}, folder / WEIGHTS)
            give_usual_mode(folder / WEIGHTS)
        elif self.trees is not None:
            (folder / TREES).write_text(self.trees.text, encoding="utf-8")
            save_arrays({str(n): seen for n, seen in self.trees.inputs.frequencies.items()}, folder / FREQUENCIES)
            give_usual_mode(folder / FREQUENCIES)
        manifest = {"ranker_id": self.ranker_id, **json.loads(self._text())}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True), encoding="utf-8")

    @staticmethod
    def read(folder: StoragePath) -> Ranker:
        """The inverse of ``write``. Raises RankerError if a file is missing or is not the one that was saved."""
        manifest = _json(folder / MANIFEST)
        network, trees = None, None
        try:
            if manifest["shape"] is None:
                frequencies = {int(n): seen for n, seen in load_arrays((folder / FREQUENCIES).read_bytes()).items()}
                made = manifest["trees"]
                inputs = TreeInputs(tuple(made["features"]), made["rate"], frequencies, tuple(made["without"]))
                trees = Trees((folder / TREES).read_text(), inputs)
            else:
                shape = Shape.of_dict(manifest["shape"])
                network = module_with(
                    lambda: Network(shape), shape.to_dict(), tensors_of((folder / WEIGHTS).read_bytes())
                )
                network.eval()
        except (OSError, RuntimeError, ValueError, TypeError, KeyError, SafetensorError) as error:
            raise RankerError(f"the ranker in {folder} cannot be read: {' '.join(str(error).split())[:200]}") from None
        ranker = Ranker(
            manifest["variant"],
            manifest["model"],
            manifest["seed"],
            manifest["training"],
            network,
            trees,
            Calibration.of_dict(manifest["calibration"]),
        )
        if ranker.ranker_id != manifest["ranker_id"]:
            raise RankerError(
                f"the ranker in {folder} is damaged: its id is {ranker.ranker_id}, it was saved as "
                f"{manifest['ranker_id']}; train rankers again (ranking.mode: train)"
            )
        return ranker


@dataclass(frozen=True)
class Rankings:
    """The rankers of one training run, with what all of them share.

    ``vocabularies`` by field, in order; the ``context`` keys among the fields; ``buckets`` of hashed ids (None: looked
    up); the ``split`` by time; ``model_id`` of the tower whose vectors they read (None: they read none);
    ``lag_hours`` of their running counts (None: they read none); ``features``: ``ranking.inputs`` and the other
    settings of how they are made.
    """

    rankers: Sequence[Ranker]
    vocabularies: Mapping[str, Vocabulary]
    context: Sequence[str]
    buckets: int | None
    split: Split
    model_id: str | None
    lag_hours: float | None
    features: Mapping[str, Any] = field(default_factory=dict)


def save_rankings(workspace: Workspace, run_id: str, rankings: Rankings, settings: Settings) -> str:
    """Write rankings/<run_id> atomically; returns the hash of its manifest."""
    with new_folder(workspace.place / FOLDER, workspace.scratch) as folder:
        temporary = folder.path
        write_vocabularies(rankings.vocabularies, storage_path(temporary / VOCABULARIES))
        for ranker in rankings.rankers:
            ranker.write(temporary / ranker.name)
        manifest = {
            "format": FORMAT,
            "fields": list(rankings.vocabularies),
            "context": list(rankings.context),
            "buckets": rankings.buckets,
            "vocabularies": _sha256(storage_path(temporary / VOCABULARIES)),
            "validation_from": rankings.split.validation_from,
            "test_from": rankings.split.test_from,
            "model_id": rankings.model_id,
            "lag_hours": rankings.lag_hours,
            "features": dict(rankings.features),
            "rankers": {ranker.name: ranker.ranker_id for ranker in rankings.rankers},
        }
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True), encoding="utf-8")
        save_settings(settings, temporary)
        target = folder.appear(run_id, MANIFEST)
    return _sha256(target / MANIFEST)


def load_rankings(workspace: Workspace, run_id: str, variants: Sequence[str], seeds: Sequence[int]) -> Rankings:
    """The rankers of ``variants`` and ``seeds`` that a run saved.

    Raises RankerError if there is none of them, if a file is damaged, and if the format is another version's.
    """
    folder = workspace.place / FOLDER / run_id
    manifest = _json(folder / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise RankerError(
            f"{folder} has the format {manifest.get('format')}, this version reads {FORMAT}: train rankers again "
            "(ranking.mode: train)"
        )
    if _sha256(folder / VOCABULARIES) != manifest["vocabularies"]:
        raise RankerError(f"{folder / VOCABULARIES} is damaged: its hash is not the one it was saved with")
    requested = [f"{variant}-{seed}" for variant in variants for seed in seeds]
    names = [name for name in requested if name in manifest["rankers"]]
    if not names:
        raise RankerError(
            f"rank_ads: {folder} has no ranker of {', '.join(requested)} (ranking.variants, ranking.seeds); it has "
            f"{', '.join(manifest['rankers'])}"
        )
    vocabularies = read_vocabularies(folder / VOCABULARIES, manifest["fields"], manifest["buckets"])
    split = Split(manifest["validation_from"], manifest["test_from"])
    rankers = [Ranker.read(folder / name) for name in names]
    shared = (manifest[name] for name in ("model_id", "lag_hours", "features"))
    return Rankings(rankers, vocabularies, manifest["context"], manifest["buckets"], split, *shared)


def saved_by(workspace: Workspace, run_id: str | None) -> tuple[str, str]:
    """(run id, hash of the manifest) of the rankers of a run, or of the newest run that saved some (None).

    Raises RankerError where there are none.
    """
    runs = [run.run_id for run in all_runs(workspace) if run.job == "rank_ads" and run.status == "done"]
    trained = [name for name in runs if (workspace.place / FOLDER / name / MANIFEST).is_file()]
    if run_id is None and not trained:
        raise RankerError("rank_ads: no ranker has been trained here yet; run with ranking.mode: train first")
    if run_id is not None and run_id not in trained:
        raise RankerError(
            f"rank_ads: the run {run_id} (ranking.ranker) saved no rankers; those that did are "
            f"{', '.join(trained[-3:]) or 'none'}"
        )
    chosen = run_id or trained[-1]
    return chosen, _sha256(workspace.place / FOLDER / chosen / MANIFEST)


def _json(path: StoragePath) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise RankerError(f"{path} cannot be read: {error}") from None
    return content


def _sha256(path: StoragePath) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise RankerError(f"{path} cannot be read: {error}") from None
