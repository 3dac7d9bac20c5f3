"""Vectors of items that are newer than a release, from their texts: comparable with the released ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings import Settings
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.text.cleaning import clean_text
from learn_spark.data.text.templates import template
from learn_spark.encoder.api import text_encoder
from learn_spark.encoder.identity import identify
from learn_spark.features.pinned_model import PinnedModel

Text = str | Mapping[str, str | None]


class NewItems:
    """The frozen LLM, the embedding space and the item side of a release's model, loaded once for many texts.

    A text is the whole prompt, or a mapping of item columns (title, category, ...) that the settings' template makes a
    prompt of, as the stage item_text does.
    """

    def __init__(self, workspace: Workspace, settings: Settings, release: str = "latest") -> None:
        """Load the model of ``release`` and its encoder.

        Raises NoReleaseError, EncoderError where the LLM cannot be loaded, and LearnSparkError where the model reads no
        content or the settings name another encoder or template.
        """
        from learn_spark.model.towers.bound import BoundTower

        self._pinned = PinnedModel.open(workspace, settings, release=release)
        model, self._settings = self._pinned.model, settings
        if not isinstance(model.tower, BoundTower):
            raise LearnSparkError(
                f"the released {model.method} model {model.model_id} knows items by their IDs alone, so that a text "
                "has no vector; release a learn or learn-plus model"
            )
        encoder_key, template_version = identify(settings.encoder).key, template(settings.text.template).key
        for name, of_model, of_settings in (
            ("encoder", model.manifest.encoder_key[:12], encoder_key[:12]),
            ("template", model.manifest.template_version, template_version),
        ):
            if of_model != of_settings:
                raise LearnSparkError(
                    f"the released model {model.model_id} has the {name} {of_model}, but the settings name "
                    f"{of_settings}; open the workspace with the settings of the release"
                )
        # Items beyond those that the model was trained with have neither an ID nor events.
        self._tower, self._known = model.tower, model.tower.n_items
        self._space = self._pinned.space
        self._encoder = text_encoder(settings.encoder, cache=workspace.folder("cache", "models"))

    def content(self, texts: Sequence[Text]) -> np.ndarray:
        """Content [n, C] float32 in the model's embedding space: the rows ``new_items`` of an exported user tower.

        Raises LearnSparkError for a text of which the encoder makes no vector.
        """
        encoded = self._encoder.encode([self._prompt(text) for text in texts])
        for place, reason in encoded.errors.items():
            raise LearnSparkError(f"text {place} has no vector: {reason}")
        # Rounded as the item matrix is.
        content = self._space.apply(encoded.vectors).astype(self._settings.embedding_space.dtype)
        return content.astype(np.float32)

    def vectors(self, texts: Sequence[Text]) -> np.ndarray:
        """Item vectors [n, D] float32, as publish would compute them for items without an event. Errors as
        ``content``.
        """
        from learn_spark.model.towers.vectors import item_vectors

        content, known = self.content(texts), self._known
        # Zeros that nothing reads take no memory.
        matrix = np.zeros((known + 1 + len(content), content.shape[1]), np.float32)
        matrix[known + 1 :] = content
        self._tower.n_items = known
        self._tower.bind(matrix)
        return item_vectors(self._pinned.model.vectors(), positions=np.arange(known, known + len(content)))

    def _prompt(self, text: Text) -> str:
        settings = self._settings.text
        if not isinstance(text, str):
            chosen = template(settings.template)
            if unknown := sorted(set(text) - set(chosen.fields())):
                raise LearnSparkError(
                    f"template {chosen.name} has no field {', '.join(unknown)}; its fields are "
                    f"{', '.join(chosen.fields())}"
                )
            fields = {name: clean_text(text.get(name), settings.max_characters) for name in chosen.fields()}
            text = chosen.text(fields)
        return text[: settings.max_characters] if text.strip() else settings.fallback
