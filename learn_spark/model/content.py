"""The content that a tower reads: the item matrix of pinned tables, in the space of the training catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.encoder import WhitenedSpaceSettings
from learn_spark.core.stages.context import StageContext
from learn_spark.data.text.templates import template
from learn_spark.encoder.embedding_space import (
    EmbeddingSpace,
    fit_embedding_space,
    read_embedding_space,
    register_embedding_space,
)
from learn_spark.encoder.identity import identify
from learn_spark.model.feed.item_matrix import item_matrix, item_matrix_path
from learn_spark.model.towers.bound import BoundTower

if TYPE_CHECKING:  # what is fitted upon a tower has no part in its training
    from learn_spark.model.store import Model


def matrix_path(context: StageContext, space: EmbeddingSpace | None = None) -> Path:
    """The file of the item matrix of the pinned tables, for the settings' encoder and template, raw or in ``space``."""
    return item_matrix_path(
        context.snapshot("item_index"),
        context.snapshot("item_text"),
        context.snapshot("text_embeddings"),
        template_version=template(context.settings.text.template).key,
        encoder_key=identify(context.settings.encoder).key,
        cache=context.folder("cache", "item_matrix"),
        dtype=context.settings.embedding_space.dtype if space is not None else "float32",
        space=space,
        console=context.console,
    )


def fit_content(context: StageContext, events: np.ndarray) -> tuple[Path, str]:
    """(file of the item matrix in the settings' space, its space_key).

    The space is fitted on items with a training event and registered; ``events`` [N] are each item's training events.
    """
    settings = context.settings.embedding_space
    trained = np.flatnonzero(events) + 1
    whitening = settings if isinstance(settings, WhitenedSpaceSettings) else None
    matrix = item_matrix(matrix_path(context))
    try:
        space = fit_embedding_space(
            matrix,
            settings.kind,
            ridge=whitening.ridge if whitening else 0.0,
            dims=whitening.dims if whitening else None,
            rows=trained,
        )
    except ValueError as error:
        raise LearnSparkError(
            f"the embedding space cannot be fitted: {error}. It is fitted on the {len(trained):,} items "
            f"with a training event; embedding_space.kind is {settings.kind}: set it to centred or raw, or add events"
        ) from None
    key = register_embedding_space(context.workspace, space, identify(context.settings.encoder).key, context.inputs)
    return matrix_path(context, space), key


def bind_content(context: StageContext, model: Model) -> Path | None:
    """Bind a model's tower to its content, in the space that the model was trained in.

    Returns the matrix's file, None for a tower without content. Raises LearnSparkError where the settings name another
    encoder than the model's.
    """
    if not isinstance(model.tower, BoundTower):
        return None
    key = identify(context.settings.encoder).key
    if model.manifest.encoder_key != key:
        raise LearnSparkError(
            f"model {model.model_id} was trained on encoder {model.manifest.encoder_key[:12]}, but the settings "
            f"name encoder {key[:12]}; set the model's encoder or train again"
        )
    assert model.manifest.space_key is not None
    path = matrix_path(context, read_embedding_space(context.workspace, model.manifest.space_key))
    model.tower.bind(item_matrix(path))
    return path
