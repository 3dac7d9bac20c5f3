"""The preference tower, and what may be fitted on top of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from learn_spark.core.settings.base import Count, Rate, Section, Share


class RerankerSettings(Section):
    """Reranks by co-visitation: a small head weighs the tower's score, an item's text, and the pairs of events that
    training users had near each other. It is fitted on the validation targets, and used where validation is better with
    it (learn_spark/model/reranking).
    """

    reach: Count = 10
    """Pairs are events at most so many positions apart; also the user's last events that are looked up."""
    decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    """A pair counts decay ^ (positions apart - 1)."""
    hidden: Count = 32
    """Width of the head."""
    epochs: Count = 8
    """Passes over the validation users. In each, every user is scored against the whole catalogue: for catalogues of up
    to some 100,000 items."""
    batch_size: Count = 128
    """Users a step."""
    learning_rate: Rate = 3e-3
    """Adam's, in the fit of the head."""
    rare: Annotated[float, Field(ge=0.0)] = 0.0
    """A target of an item with n events weighs (1 + n) ^ -rare in the fit; above 0 favours rare items."""


class BlendingSettings(Section):
    """Blends content and popularity into the vectors, with weights by an item's number of events: the similarity of an
    item's text to the texts of the user's last events, and the item's share of the events. The weights are fitted on
    validation targets, and used where validation is better with them (learn_spark/model/blending). Vectors become
    longer by the width of the content plus 2.
    """

    reach: Count = 10
    """The user's last events whose texts are compared with an item's."""
    users: Count = 10_000
    """Validation users in the fit, at most; each is scored against the whole catalogue."""
    rare: Annotated[float, Field(ge=0.0)] = 0.0
    """A target of an item with n events weighs (1 + n) ^ -rare in the fit; above 0 favours rare items."""


class _TowerSettings(Section):
    width: Count = 128
    """Width of the transformer (the paper: 768)."""
    layers: Count = 2
    """Transformer blocks (the paper: 12, its released code: 4)."""
    heads: Count = 4
    """Attention heads; must divide width."""
    ffn: Count = 512
    """Inner width of a block's feed-forward part."""
    dropout: Share = 0.1
    """Share of activations dropped in training. More prevents overfitting and learns more slowly."""
    reranker: RerankerSettings | None = None
    """Reranking by co-visitation; {} for its defaults, null for none."""

    @property
    def reads_content(self) -> bool:
        """Whether the tower is one over the frozen embeddings."""
        return isinstance(self, ContentTowerSettings)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> _TowerSettings:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class ContentTowerSettings(_TowerSettings):
    """What towers over the frozen embeddings share."""

    blending: BlendingSettings | None = None
    """Content and popularity in the vectors; {} for its defaults, null for none."""


class LearnTowerSettings(ContentTowerSettings):
    """LEARN's twin towers over content (arXiv 2405.03988)."""

    kind: Literal["learn"] = "learn"
    """The paper's tower."""
    output_dim: Count = 64
    """Width of user and item vectors (the paper's online system: 64)."""
    item_tower: Literal["a", "b", "c"] = "a"
    """a: causal over the targets (the paper's best); b: each item alone; c: a projection only."""


class LearnPlusTowerSettings(ContentTowerSettings):
    """Content and ID of an item in one vector, as wide as the transformer; goes beyond the paper."""

    kind: Literal["learn-plus"] = "learn-plus"
    """The tower over content and IDs."""
    ids: bool = True
    """Whether an item has an embedding of its own beside its content."""
    id_dropout: Share = 0.0
    """Share of an item's appearances in training without its own embedding, as new items have none."""
    time_gaps: bool = False
    """Whether the time between events is an input."""


class _IDTowerSettings(_TowerSettings):
    similarity: Literal["cosine", "dot"] = "cosine"
    """How user and item vectors are compared."""
    positions: Literal["first", "last"] | None = None
    """Whether positions count from the window's first or from its last event; null: as the authors do, from the last
    in SASRec, from the first in HSTU."""


class SASRecTowerSettings(_IDTowerSettings):
    """SASRec over item IDs (arXiv 1808.09781); its vectors are as wide as the transformer."""

    kind: Literal["sasrec"] = "sasrec"
    """A rival over item IDs."""


class HSTUTowerSettings(_IDTowerSettings):
    """HSTU over item IDs (arXiv 2402.17152); its vectors are as wide as the transformer."""

    kind: Literal["hstu"] = "hstu"
    """A rival over item IDs."""


TowerSettings = Annotated[
    LearnTowerSettings | LearnPlusTowerSettings | SASRecTowerSettings | HSTUTowerSettings, Field(discriminator="kind")
]


def blending_of(tower: TowerSettings) -> BlendingSettings | None:
    """The blending that the settings ask for; None for none, and for towers over IDs."""
    return tower.blending if isinstance(tower, ContentTowerSettings) else None
