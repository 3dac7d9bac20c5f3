"""Settings of the preference tower, of its reranker, of its blending and of narrower vectors."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from learn_spark.core.settings.base import Count, Rate, Section, Share


class RefinementSettings(Section):
    """The reranker's second head (learn_spark/model/reranking/refinement.py).

    It orders the best items of the first head anew, and reads more about them: their texts beside that of each of the
    user's last events, and two steps through the co-visits. It is fitted on validation targets, and used if it improves
    validation.
    """

    items: Count = 150
    """Best items of a user that are ordered anew. The fit has up to 180 bytes for each validation user and item in
    memory."""
    hidden: Count = 64
    """Width of the head."""
    epochs: Count = 8
    """Passes over the validation users."""
    learning_rate: Rate = 2e-3
    """Adam's learning rate."""


class RerankerSettings(Section):
    """Reranking by co-visitation (learn_spark/model/reranking).

    A small head weighs the tower's score, the item's text, and co-visitation: pairs of nearby events of training users.
    The head is fitted on validation targets, and used if it improves validation.
    """

    reach: Count = 10
    """Maximum distance in positions between the events of a pair; also the number of the user's last events that are
    used."""
    decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    """The weight of a pair is decay ^ (distance in positions - 1)."""
    pair_users: Count = 500_000
    """Maximum number of users whose pairs are counted, the same users in every run. Memory grows with the distinct
    pairs: at most 24 bytes times reach for each of their events, and 16 with a refinement."""
    hidden: Count = 32
    """Width of the head."""
    epochs: Count = 8
    """Passes over the validation users. Each pass scores every user against the whole catalogue, which suits catalogues
    of up to about 100,000 items."""
    batch_size: Count = 128
    """Users a step."""
    learning_rate: Rate = 3e-3
    """Adam's learning rate in the fit of the head."""
    rare: Annotated[float, Field(ge=0.0)] = 0.0
    """The weight of a target in the fit is (1 + n) ^ -rare for an item with n events; above 0, rare items weigh
    more."""
    refinement: RefinementSettings | None = RefinementSettings()
    """A second head for each user's best items; null: none."""


class BlendingSettings(Section):
    """Content and popularity as parts of the vectors (learn_spark/model/blending).

    The parts are the similarity of an item's text to the texts of the user's last events, the item's share of the
    events and, by setting, the similarity of its co-visits to theirs. Their weights depend on the item's number of
    events; they are fitted on validation targets, and used if they improve validation. Vectors become wider by the
    width of the content, plus co_visits, plus 2.
    """

    reach: Count = 10
    """Number of the user's last events whose texts are compared with an item's."""
    decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """The weight of an event among these is decay ^ (number of later events). 1: all alike."""
    co_visits: Annotated[int, Field(ge=0)] = 0
    """Width of the items' vectors of co-visits: leading eigenvectors of the graph of items that users had within reach
    events. 0: none."""
    pair_users: Count = 500_000
    """Maximum number of users whose co-visits are counted, the same users in every run. Memory grows with the distinct
    pairs: at most 24 bytes times reach for each of their events."""
    users: Count = 10_000
    """Maximum number of validation users in the fit."""
    items: Count = 200_000
    """Maximum number of items that these users are scored against, besides all targets: a sample that is the same in
    every run; all items where there are fewer."""
    rare: Annotated[float, Field(ge=0.0)] = 0.0
    """The weight of a target in the fit is (1 + n) ^ -rare for an item with n events; above 0, rare items weigh
    more."""
    profile: bool = False
    """Whether an item's weight depends on how popular the user's last items are and on how many events the user has.
    Two more numbers of a vector."""
    trend_days: Annotated[int, Field(ge=0)] = 0
    """An item's events in the last so many days of training count besides all its events; 0: they do not. For
    histories.protocol time_split: elsewhere these days would be after many of the targets."""
    text_floor: Annotated[float, Field(ge=0.0)] = 0.0
    """The share of the NDCG@10 of texts alone that each level of items should keep: unseen items, and those with 1-4,
    5-19, 20-99 and more events. The fit weighs targets of levels below it more; a small shortfall may stay. 0: none."""
    tower_floor: Annotated[float, Field(ge=0.0)] = 0.0
    """The share of the NDCG@10 of the tower alone that each level of items should keep."""


class NarrowingSettings(Section):
    """Released vectors of fewer numbers (learn_spark/model/narrowing).

    A linear map of users and one of items are fitted, without any target, so that each user's best items are those of
    the wide vectors. Index, features and service get smaller; ``train`` prints what it costs on validation. Scores then
    compare the items of one user, and not users.
    """

    width: Annotated[int, Field(ge=2)] = 64
    """Numbers of a released vector. A model whose vectors have no more keeps them as they are."""
    steps: Annotated[int, Field(ge=0)] = 400
    """Steps of Adam in a fit; 0: the singular value decomposition of the scores alone. There are up to three fits: two
    are for the figures on validation."""
    batch_size: Count = 256
    """Users a step."""
    items: Count = 16_384
    """Items that a step's users are scored against, drawn anew for every step; all where there are fewer."""


class _TowerSettings(Section):
    width: Count = 128
    """Width of the transformer (the paper: 768)."""
    layers: Count = 2
    """Transformer blocks (the paper: 12, its released code: 4)."""
    heads: Count = 4
    """Attention heads; must divide width."""
    ffn: Count = 512
    """Inner width of a block's feed-forward network."""
    dropout: Share = 0.1
    """Share of activations dropped in training. More dropout reduces overfitting and slows learning."""
    reranker: RerankerSettings | None = None
    """Reranking by co-visitation; {}: with defaults, null: none."""
    narrowing: NarrowingSettings | None = None
    """Released vectors of fewer numbers; {}: of 64, null: as wide as the tower and blending make them."""

    @property
    def reads_content(self) -> bool:
        """Whether the tower reads the frozen embeddings."""
        return isinstance(self, ContentTowerSettings)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> _TowerSettings:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class ContentTowerSettings(_TowerSettings):
    """Settings of all towers over the frozen embeddings."""

    blending: BlendingSettings | None = None
    """Content and popularity in the vectors; {}: with defaults, null: none."""


class LearnTowerSettings(ContentTowerSettings):
    """LEARN's twin towers over content (arXiv 2405.03988)."""

    kind: Literal["learn"] = "learn"
    """The paper's tower."""
    output_dim: Count = 64
    """Width of user and item vectors (the paper's online system: 64)."""
    item_tower: Literal["a", "b", "c"] = "a"
    """a: causal over the targets (the paper's best); b: each item separately; c: a projection only."""


class LearnPlusTowerSettings(ContentTowerSettings):
    """Content and ID of an item in one vector, as wide as the transformer; an extension of the paper."""

    kind: Literal["learn-plus"] = "learn-plus"
    """The tower over content and IDs."""
    ids: bool = True
    """Whether an item has a learnt ID embedding in addition to its content."""
    id_dropout: Share = 0.0
    """Share of an item's appearances in training without its ID embedding, because new items have none."""
    time_gaps: bool = False
    """Whether the time between events is an input."""
    norm: Literal["pre", "post"] = "pre"
    """Where the blocks normalise. pre: what attention and feed-forward read; post: the embedded events, and the sums of
    each block's input and result, as in BERT. post learns faster by objective.prefixes."""
    unit_content: bool = False
    """Whether content is scaled to length 1 before its projection. Whitened content is longer by the root of its width,
    and IDs learn slowly beside it."""
    similarity: Literal["cosine", "dot"] = "cosine"
    """Similarity of user and item vectors. dot suits objective.temperature 1."""
    members: Count = 1
    """Number of towers that are trained side by side, each by its own loss. Their vectors are concatenated to members
    times width numbers, whose inner product is the mean of the members' similarities. Training takes members times as
    long."""


class _IDTowerSettings(_TowerSettings):
    similarity: Literal["cosine", "dot"] = "cosine"
    """Similarity of user and item vectors. dot suits objective.temperature 1."""
    positions: Literal["first", "last"] | None = None
    """Whether positions are counted from the first or from the last event of the window; null: the authors' choice, the
    last in SASRec and BSARec, and the first in HSTU."""


class SASRecTowerSettings(_IDTowerSettings):
    """SASRec over item IDs (arXiv 1808.09781); its vectors are as wide as the transformer."""

    kind: Literal["sasrec"] = "sasrec"
    """A baseline over item IDs."""


class HSTUTowerSettings(_IDTowerSettings):
    """HSTU over item IDs (arXiv 2402.17152); its vectors are as wide as the transformer."""

    kind: Literal["hstu"] = "hstu"
    """A baseline over item IDs."""


class BSARecTowerSettings(_IDTowerSettings):
    """BSARec over item IDs (arXiv 2312.10325); its vectors are as wide as the transformer. Train it with
    objective.prefixes: without it, every prefix of a history is encoded, too, but no faster.
    """

    kind: Literal["bsarec"] = "bsarec"
    """A baseline over item IDs: a low-pass filter beside attention."""
    alpha: Share = 0.7
    """Weight of the filter; attention has the rest."""
    c: Count = 5
    """The filter keeps the c // 2 + 1 lowest frequencies of the window."""


TowerSettings = Annotated[
    LearnTowerSettings | LearnPlusTowerSettings | SASRecTowerSettings | HSTUTowerSettings | BSARecTowerSettings,
    Field(discriminator="kind"),
]


def blending_of(tower: TowerSettings) -> BlendingSettings | None:
    """The blending of the settings; None if there is none, and for towers over IDs."""
    return tower.blending if isinstance(tower, ContentTowerSettings) else None
