"""Settings of the exposures and of the ads rankers."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from learn_spark.core.settings.base import Count, Rate, Section, iso_time
from learn_spark.core.settings.source import LogSettings
from learn_spark.core.times import as_micros

ExposureKind = Literal["promotion", "coupon"]


class PeriodSettings(Section):
    """The period of the exposures: those with ``since`` <= event_time < ``until``."""

    since: str | None = None
    """Exposures from this time on (UTC unless it names a zone); null: from the first."""
    until: str | None = None
    """Exposures before this time (UTC unless it names a zone); null: to the last."""

    @field_validator("since", "until")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        return iso_time(value)

    @model_validator(mode="after")
    def _is_a_period(self) -> Self:
        if self.since is not None and self.until is not None and as_micros(self.since) >= as_micros(self.until):
            raise ValueError(f"since {self.since} is not before until {self.until}")
        return self

    def since_micros(self) -> int | None:
        """``since`` in microseconds since 1970 (UTC unless it names a zone)."""
        return None if self.since is None else as_micros(self.since)

    def until_micros(self) -> int | None:
        """``until`` in microseconds since 1970 (UTC unless it names a zone)."""
        return None if self.until is None else as_micros(self.until)


class InteractionExposuresSettings(PeriodSettings):
    """Exposures from the events of the workspace: every event, or the converted ones among candidates."""

    origin: Literal["interactions"] = Field(default="interactions", alias="from")
    """Exposures from the table interactions."""
    positive_value: float = 4.0
    """An event with this value or more is a conversion."""
    candidates: Annotated[int, Field(ge=0)] = 0
    """Items drawn for each converted event, as if shown beside it, by their popularity at that time; 0: every event is
    an exposure, and no other. With candidates, an event without a value is a conversion too.
    """
    similar: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Chance of a candidate to be drawn from what users of the converted item had before that time, next to it; an item
    without such events gets one by popularity.
    """
    repeats: bool = True
    """Whether candidates, and the converted events beside them, may be of an item that the user has an earlier event
    of. false where users take an item once, as films that are rated: then such a candidate never converts, and inputs
    that tell known items would seem to help.
    """
    event_types: list[str] | None = None
    """Types of the events that are exposures, and that candidates are drawn from; null: all."""
    pool: Count = 10_000
    """Candidates are drawn from so many last events before a converted one."""
    seed: Annotated[int, Field(ge=0)] = 2024
    """Seed of the sample of unconverted exposures."""


class LogExposuresSettings(PeriodSettings):
    """Exposures from log files."""

    origin: Literal["logs"] = Field(alias="from")
    """Exposures from files that ``logs`` describes."""
    path: str | None = Field(default=None, min_length=1)
    """Folder or address of the files; null: source.path."""
    logs: list[LogSettings] = Field(default_factory=list)
    """The files and their columns, one entry per kind of file."""
    unreadable: Literal["stop", "skip"] = "stop"
    """An unreadable file: stop fails the run, skip reports the file and continues."""

    @model_validator(mode="after")
    def _has_logs(self) -> Self:
        if not self.logs:
            raise ValueError("logs must be given if from is logs: logs: [{files: ..., columns: {...}}]")
        return self


class JourneyExposuresSettings(PeriodSettings):
    """Exposures from the promotions and coupons of the package Complete Journey, whose rows are simulated.

    All converted exposures are kept. Of the others a share is sampled by a hash of event_id and ``seed``; a sampled
    exposure has the weight 1 / share.
    """

    origin: Literal["complete-journey"] = Field(alias="from")
    """Exposures from the promotions and coupons of Complete Journey."""
    path: str | None = Field(default=None, min_length=1)
    """Folder or address of the files; null: source.path."""
    kinds: list[ExposureKind] = Field(default_factory=lambda: list(get_args(ExposureKind)), min_length=1)
    """promotion: products on display or in the mailer, to each visit; coupon: products of a campaign's coupons, to each
    household that received it.
    """
    campaign_types: list[str] = Field(default_factory=lambda: ["Type B", "Type C"], min_length=1)
    """Types of the coupons' campaigns. In campaigns of Type A the files do not state which coupons a household got."""
    promotion_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the unconverted promotions to keep."""
    coupon_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the unconverted coupons to keep."""
    attribution_days: Count = 21
    """Days within which a coupon must be redeemed to count as converted."""
    seed: Annotated[int, Field(ge=0)] = 2024
    """Seed of the sample of unconverted exposures."""


ExposuresSettings = Annotated[
    InteractionExposuresSettings | LogExposuresSettings | JourneyExposuresSettings, Field(discriminator="origin")
]


def exposures_path(settings: ExposuresSettings) -> str | None:
    """The folder or address of the files of exposures; None for source.path, or where they are made from no files."""
    return None if isinstance(settings, InteractionExposuresSettings) else settings.path


Variant = Literal["base", "learn", "learn-adaptor", "gbdt", "gbdt-learn"]
FeatureInput = Literal["vectors", "score", "nearest", "list"]
_DEFAULT_INPUTS: tuple[FeatureInput, ...] = ("score", "nearest")
Thresholds = Annotated[list[Count], Field(min_length=2, max_length=2)]


class CohortsSettings(Section):
    """Items and users by their events before the release's as-of time: cold (fewer than the first threshold),
    long-tail (fewer than the second), other.
    """

    item: Thresholds = Field(default_factory=lambda: [1, 20])
    """Two thresholds of an item's events."""
    user: Thresholds = Field(default_factory=lambda: [1, 20])
    """Two thresholds of a user's events."""

    @model_validator(mode="after")
    def _rise(self) -> CohortsSettings:
        for name, (first, second) in (("item", self.item), ("user", self.user)):
            if first >= second:
                raise ValueError(f"cohorts.{name}: thresholds must rise, got {[first, second]}")
        return self


class TreesSettings(Section):
    """Gradient-boosted trees (LightGBM), the sanity baseline of variants gbdt and gbdt-learn."""

    leaves: Annotated[int, Field(ge=2)] = 31
    """Maximum number of leaves of a tree."""
    rounds: Count = 300
    """Maximum number of trees."""
    rows: Count = 1_000_000
    """Maximum number of exposures that trees are trained on, and that stop them: of more, one of each stretch of time
    is drawn. LightGBM has them in memory, a byte for each number of an exposure.
    """
    categories: Count = 255
    """Maximum number of values of a field that is a category. Of a field of more values trees read the number of a
    value's training exposures, and of users and items their running counts (ranking.counts).
    """
    patience: Count = 20
    """Rounds without a lower log loss on validation after which training stops."""
    learning_rate: Rate = 0.1
    """Shrinkage: the factor of each tree's prediction."""
    min_leaf: Count = 50
    """Minimum number of training exposures in a leaf."""
    max_step: Rate = 1.0
    """Maximum output of a leaf, in logits before the learning rate. If conversions are rare and other exposures have
    large weights, the Newton step of a leaf with conversions only is nearly unbounded.
    """


class RankingSettings(Section):
    """The ads ranker: a conversion model on exposures, with and without the released features (docs/ranking.md).

    Exposures are split by time into train, validation and test: by shares, or at two times.
    """

    mode: Literal["train", "score"] = "train"
    """train: train rankers, and evaluate them on the last exposures; score: score with saved rankers."""
    ranker: str | None = None
    """Mode score: id of the run that saved the rankers; null: the newest run that did."""
    since: str | None = None
    """Mode score: score exposures from this time on; null: from the start of the rankers' test period."""
    clock: Literal["published", "as_of"] = "published"
    """Which release an exposure reads. published: the release in force at its time; as_of: the newest release without
    an event at or after its time (for logs from before the first release).
    """
    variants: list[Variant] = Field(default_factory=lambda: list(get_args(Variant)), min_length=1)
    """base: without features; learn: ``inputs`` of the released vectors; learn-adaptor: these and LEARN's adaptor over
    both vectors; gbdt, gbdt-learn: trees over the inputs of base and learn.
    """
    inputs: list[FeatureInput] = Field(default_factory=lambda: list(_DEFAULT_INPUTS), min_length=1)
    """What learn, learn-adaptor and gbdt-learn read of the released vectors. vectors: user and item vector; score:
    their product; nearest: mean and largest product of the item's vector with those of the user's last events; list:
    the score's place among the exposures of one request_id and time, and its distance to their mean.
    """
    nearest_events: Count = 10
    """inputs nearest: so many last events of the user before an exposure, less ``outcome_lag_hours``."""
    model: Literal["mlp", "dcn_v2"] = "dcn_v2"
    """dcn_v2: cross layers in parallel with the MLP; mlp: only the MLP."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default_factory=lambda: [2024, 2025, 2026], min_length=1)
    """Each variant is trained with each seed; intervals are over seeds."""
    train_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.7
    """Share of the exposures for training: the earliest ones."""
    validation_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of the exposures for validation (early stopping): the next ones. The rest is the test."""
    validation_from: str | None = None
    """Start time of validation, instead of the shares; together with ``test_from``."""
    test_from: str | None = None
    """Start time of the test, instead of the shares; together with ``validation_from``."""
    ids: Literal["lookup", "hashed"] = "lookup"
    """lookup: a row of the embedding table for each frequent id of training, and one for all others; hashed: ids share
    ``buckets`` rows.
    """
    buckets: Count = 4096
    """ids hashed: rows per field."""
    min_count: Count = 2
    """ids lookup: minimum number of training exposures of an id with a separate row."""
    context: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    """Keys of the exposures' context that are features."""
    counts: bool = True
    """Whether all variants read running counts of the item and of the user before an exposure (shown, converted,
    smoothed rate), and the numbers of their events before the release.
    """
    outcome_lag_hours: Annotated[float, Field(ge=0.0)] = 24.0
    """Hours after an exposure in which its outcome becomes known: running counts leave out later exposures. 0: at once,
    for labels that are known at the exposure's time.
    """
    id_gate: Annotated[float, Field(ge=0.0)] = 1000.0
    """Training exposures of an id whose embedding counts half: of n exposures it counts n / (n + id_gate). An id that
    training did not have gives nothing. 0: every embedding counts in full.
    """
    group_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Chance of each group of inputs of an exposure to be 0 in training. Groups: an embedding, the time, the counts of
    the item, those of the user, a vector, the score, the adaptor's output.
    """
    id_dim: Count = 16
    """Width of a field's embedding."""
    hidden: list[Count] = Field(default_factory=lambda: [64, 32], min_length=1)
    """Widths of the MLP's layers."""
    cross_layers: Count = 2
    """dcn_v2: cross layers; each adds one degree of feature products."""
    cross_rank: Count | None = 32
    """dcn_v2: rank of the cross matrices, lower is cheaper; null: full matrices."""
    adaptor_dim: Count = 32
    """learn-adaptor: width of the adaptor's output."""
    auxiliary_weight: Annotated[float, Field(ge=0.0)] = 0.5
    """learn-adaptor: weight of the adaptor's auxiliary conversion loss."""
    epochs: Count = 10
    """Maximum number of passes over the training exposures."""
    validation_steps: Count | None = None
    """Batches between validations; null: a tenth of an epoch."""
    patience: Count = 10
    """Validations without a lower log loss after which training stops."""
    calibrate: bool = True
    """Whether each ranker's logits get a temperature, a bias, and an offset for each cohort of items and of users,
    fitted on the exposures of validation. Early stopping then goes by the log loss after such a fit.
    """
    batch_size: Count = 256
    """Exposures per step."""
    learning_rate: Rate = 3e-3
    """Adam's learning rate."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-5
    """Adam's L2 penalty; it shrinks embeddings of rare ids towards zero."""
    threads: Count | None = None
    """CPU threads; null: all cores. Fewer are faster on a busy machine."""
    trees: TreesSettings = TreesSettings()
    """Trees of the variants gbdt and gbdt-learn."""
    cohorts: CohortsSettings = CohortsSettings()
    """Thresholds of the cohorts that metrics are computed on, and whose levels are calibrated."""
    calibration_bins: Count = 10
    """Bins of ECE, with equal shares of the exposures' weight."""
    bootstrap_samples: Count = 200
    """Resamples of users for the intervals of differences."""

    @field_validator("since", "validation_from", "test_from")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        return iso_time(value)

    @model_validator(mode="after")
    def _parts_agree(self) -> RankingSettings:
        for name in ("variants", "seeds", "context", "inputs"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name} has a repeated value: {getattr(self, name)}")
        if self.train_share + self.validation_share >= 1:
            raise ValueError(
                f"train_share {self.train_share} and validation_share {self.validation_share} leave no "
                "exposures for the test; their sum must be below 1"
            )
        if (self.validation_from is None) != (self.test_from is None):
            raise ValueError("validation_from and test_from belong together: give both or neither")
        if self.validation_from and self.test_from and as_micros(self.validation_from) >= as_micros(self.test_from):
            raise ValueError(f"validation_from {self.validation_from} is not before test_from {self.test_from}")
        if self.mode == "train" and (self.ranker or self.since):
            raise ValueError("ranker and since are for mode score")
        return self
