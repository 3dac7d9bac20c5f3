"""The preference tower, and what may be fitted beside it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from learn_spark.core.settings.base import Count, Rate, Section, Share


class RerankerSettings(Section):
    """Co-occurrence beside the tower (model/reranking), where validation likes it better than the tower alone:
    pairs of events at most ``reach`` apart, each ``decay`` ^ (apart - 1), weighed by a small head that is fitted on the
    validation targets. ``rare``: a target of an item with n events weighs (1 + n) ^ -rare in the fit; above 0 it
    favours rare items. In each of ``epochs`` every user is scored against the whole catalogue: for some 100,000 items.
    """

    reach: Count = 10
    decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    hidden: Count = 32
    epochs: Count = 8
    batch_size: Count = 128
    learning_rate: Rate = 3e-3
    rare: Annotated[float, Field(ge=0.0)] = 0.0


class BlendingSettings(Section):
    """Content and popularity in the vectors (model/blending), where validation likes them better than the tower's
    own: the likeness of an item's text to that of the user's last ``reach`` events, and how often it was bought, each
    by how much is known of the item. Fitted on the validation targets of at most so many ``users``, each scored against
    the whole catalogue. ``rare`` as in ``reranker``. Vectors become longer by those of the content, and two.
    """

    reach: Count = 10
    users: Count = 10_000
    rare: Annotated[float, Field(ge=0.0)] = 0.0


class TowerSettings(Section):
    """The preference tower: LEARN's over content, or a rival over item IDs (learn_spark/model/towers: one file a kind).

    ``item_tower`` and ``output_dim`` are for learn; the vectors of the others are as wide as the tower. ``ids``,
    ``id_dropout`` and ``time_gaps`` are for learn-plus; ``similarity`` and ``positions`` for sasrec and hstu.
    ``reranker`` is for all, ``blending`` for those over content. ``positions`` count from the window's first event or
    from its last; null: as its authors do, sasrec from the last, hstu from the first.
    """

    kind: Literal["learn", "learn-plus", "sasrec", "hstu"] = "learn"
    width: Count = 128
    layers: Count = 2
    heads: Count = 4
    ffn: Count = 512
    output_dim: Count = 64
    dropout: Share = 0.1
    item_tower: Literal["a", "b", "c"] = "a"
    similarity: Literal["cosine", "dot"] = "cosine"
    positions: Literal["first", "last"] | None = None
    ids: bool = True
    id_dropout: Share = 0.0
    time_gaps: bool = False
    blending: BlendingSettings | None = None
    reranker: RerankerSettings | None = None

    @property
    def reads_content(self) -> bool:
        """Whether the tower is one over the frozen embeddings."""
        return self.kind in ("learn", "learn-plus")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> TowerSettings:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self

    @model_validator(mode="after")
    def _blending_has_content(self) -> TowerSettings:
        if self.blending is not None and not self.reads_content:
            raise ValueError(
                f"blending is of content, which a {self.kind} tower does not read; set tower.blending to null"
            )
        return self
