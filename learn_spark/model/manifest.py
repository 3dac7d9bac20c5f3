"""The typed manifest of a trained model (manifest.json of its folder), read without torch."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.storage.path import StoragePath

FORMAT = 3
MANIFEST = "manifest.json"
WEIGHTS, BEFORE_REFIT, CHOSEN = "model.safetensors", "before_refit.safetensors", "chosen.safetensors"
BLENDING, RERANKER, NARROWING = "blending.safetensors", "reranker.safetensors", "narrowing.safetensors"
Shape = dict[str, bool | int | float | str | None]
# One point of a learning curve by epoch: epoch, loss, samples, "validation NDCG@10", ...
Point = dict[str, float]


class ModelError(LearnSparkError):
    """A model folder that is missing, damaged or of another format."""


class ModelFormatError(ModelError):
    """A model in another format, saved by another version of learn-spark."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class BlendingFacts(_Part):
    """How content and popularity are blended into the vectors; the weights are in blending.safetensors."""

    reach: int
    """The user's last events whose texts are averaged."""
    decay: float = 1.0
    """The weight of each is decay ^ (number of later events)."""
    profile: bool = False
    """Whether the popularity of the user's last items and the number of the user's events are blended."""


class RerankerFacts(_Part):
    """How co-visitation is counted and weighed; the heads are in reranker.safetensors."""

    reach: int
    """Pairs of events are at most so many positions apart; also the user's last events that are looked up."""
    decay: float
    """A pair counts decay ^ (positions apart - 1)."""
    hidden: int
    """Width of the heads."""
    pair_users: int | None = None
    """Maximum number of users whose pairs are counted; None: all."""
    blended: bool = False
    """Whether the heads read the blended vectors, and not the tower's."""
    refined_items: int | None = None
    """Best items of a user that second heads order anew; None: there are no second heads."""
    refining_hidden: int | None = None
    """Width of the second heads."""


class NarrowingFacts(_Part):
    """How wide the released vectors are, and what they had before; the projections are in narrowing.safetensors."""

    width: int
    """Numbers of a released vector."""
    wide: int
    """Numbers of a vector of the tower, with blending where the model has it."""
    validation_of_wide: dict[str, float]
    """Metric -> value on the selection targets of the wide vectors."""


class TrainingFacts(_Part):
    """What a training knows of its model.

    Figures on validation are those of the first training, of its selection targets: under rule strict these are the
    last training events, and not the validation split.
    """

    encoder_key: str
    """Key of the frozen LLM and how it reads texts (table ``encoders``); named for towers without content too."""
    template_version: str
    """Key of the prompt template."""
    space_key: str | None
    """Embedding space of the content (table ``embedding_spaces``); None for a tower without content."""
    window: int
    """Events of a history that the user tower sees."""
    inputs: dict[str, str]
    """Versions of the tables that were read."""
    as_of: str | None
    """``histories.as_of``: no later event was learnt; None: all events."""
    seed: int
    """``training.seed``."""
    epochs: int
    """Epochs trained."""
    best_epoch: int
    """The epoch with the best NDCG@10 on validation, whose weights the model has; the first is 1."""
    parameters: int
    """Trained numbers of the tower."""
    temperature: float
    """By which scores are divided, of the model's weights."""
    temperature_before_refit: float
    """The same of the weights before a refit; equal to ``temperature`` where there was none."""
    validation: dict[str, float]
    """Metric -> value on the selection targets, with blending and reranker where the model has them."""
    validation_users: int | None = None
    """Number of users whose targets the figures on validation rank."""
    validation_margin: float | None = None
    """Half of the 95% interval of NDCG@10 on validation of the tower's vectors, over users."""
    validation_of_vectors: dict[str, float] | None = None
    """The same of the vectors alone, where the model has a reranker: vectors are released without it."""
    rule: Literal["holdout", "strict", "refit"] = "holdout"
    """``training.rule``: which events chose the epoch, and which were trained on."""
    tower_key: str | None = None
    """Identifies the tower's weights by what decides them (training/saved_towers.py); None in older manifests."""
    trial: bool = False
    """Whether it is a trial of a search, which is not released by itself."""
    blending: BlendingFacts | None = None
    """None: the tower's vectors as they are."""
    reranker: RerankerFacts | None = None
    """None: no reranker."""
    narrowing: NarrowingFacts | None = None
    """None: the vectors are released as wide as they are."""

    @property
    def released_validation(self) -> dict[str, float]:
        """Metric -> value on validation of the vectors that are released."""
        return self.validation if self.validation_of_vectors is None else self.validation_of_vectors


class ModelManifest(TrainingFacts):
    """A model folder's manifest: the training's facts, the tower's shape, and the hash of every file of weights."""

    format: int
    """Format of the folder: FORMAT."""
    shape: Shape
    """Kind and arguments of the tower (towers.registry.shape_of)."""
    files: dict[str, str]
    """Name of each file of weights -> its SHA-256."""

    @property
    def method(self) -> str:
        """The kind of tower, which is the name of the method in evaluations."""
        return str(self.shape["kind"])

    @property
    def refit(self) -> bool:
        """Whether the weights were refitted on training and validation events."""
        return BEFORE_REFIT in self.files

    @property
    def training_rule(self) -> str:
        """``training.rule`` of the training; older manifests do not name it."""
        return "refit" if self.refit else self.rule


def read_manifest(folder: StoragePath) -> ModelManifest:
    """The manifest of the model in ``folder``.

    Raises ModelFormatError for a model of another format, and ModelError where the manifest is missing or damaged.
    """
    try:
        content: Any = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{folder} is not a complete model folder: {error}; train again") from None
    written_format = content.get("format") if isinstance(content, dict) else None
    if written_format != FORMAT:
        raise ModelFormatError(
            f"the model {folder} has format {written_format}, and this version of learn-spark reads format {FORMAT}: "
            "learn-spark train --force makes a new one"
        )
    try:
        return ModelManifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise ModelError(
            f"{folder / MANIFEST} is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}; train again"
        ) from None
