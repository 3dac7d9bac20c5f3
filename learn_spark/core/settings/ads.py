"""Exposures and the rankers that learn from them."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from learn_spark.core.settings.base import Count, Rate, Section, iso_time
from learn_spark.core.settings.source import LogSettings
from learn_spark.core.times import as_micros

ExposureKind = Literal["promotion", "coupon"]


class ExposuresSettings(Section):
    """The exposures that ads are ranked on (docs/exposures.md), those with ``since`` <= event_time < ``until``.

    ``origin`` (``from`` in YAML) interactions: every event of the workspace, converted from ``positive_value`` on;
    logs: own logs, as ``logs`` describes them; complete-journey: promotions and coupons of that package, which are
    simulated. ``path`` is the folder of the logs, or of the package's files; null: ``source.path``. Coupons are of
    campaigns of ``campaign_types``: what a household received of a campaign of Type A the files do not tell.

    Of the unconverted exposures of complete-journey a share is kept, ``promotion_rate`` and ``coupon_rate``, chosen by
    a hash of the event_id and ``seed``; they weigh 1 / rate. A coupon is converted if it is redeemed within
    ``attribution_days``.
    """

    origin: Literal["interactions", "logs", "complete-journey"] = Field(default="interactions", alias="from")
    since: str | None = None
    until: str | None = None
    positive_value: float = 4.0
    path: str | None = Field(default=None, min_length=1)
    logs: list[LogSettings] = Field(default_factory=list)
    kinds: list[ExposureKind] = Field(default_factory=lambda: list(get_args(ExposureKind)), min_length=1)
    campaign_types: list[str] = Field(default_factory=lambda: ["Type B", "Type C"], min_length=1)
    promotion_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    coupon_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    attribution_days: Count = 21
    seed: Annotated[int, Field(ge=0)] = 2024

    @field_validator("since", "until")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        return iso_time(value)

    @model_validator(mode="after")
    def _parts_agree(self) -> ExposuresSettings:
        if (self.origin == "logs") != bool(self.logs):
            raise ValueError("logs are described if and only if from is logs: logs: [{files: ..., columns: {...}}]")
        if self.since is not None and self.until is not None and as_micros(self.since) >= as_micros(self.until):
            raise ValueError(f"since {self.since} is not before until {self.until}")
        return self

    def since_micros(self) -> int | None:
        """``since`` in microseconds since 1970 (UTC unless it names a zone)."""
        return None if self.since is None else as_micros(self.since)

    def until_micros(self) -> int | None:
        """``until`` in microseconds since 1970 (UTC unless it names a zone)."""
        return None if self.until is None else as_micros(self.until)


Variant = Literal["base", "learn", "learn-adaptor", "gbdt", "gbdt-learn"]
Thresholds = Annotated[list[Count], Field(min_length=2, max_length=2)]


class CohortsSettings(Section):
    """Items and users by their events before the release's as-of time: cold (fewer than the first), long-tail (fewer
    than the second), other.
    """

    item: Thresholds = Field(default_factory=lambda: [1, 20])
    user: Thresholds = Field(default_factory=lambda: [1, 20])

    @model_validator(mode="after")
    def _rise(self) -> CohortsSettings:
        for name, (first, second) in (("item", self.item), ("user", self.user)):
            if first >= second:
                raise ValueError(f"cohorts.{name}: thresholds must rise, got {[first, second]}")
        return self


class TreesSettings(Section):
    """Gradient-boosted trees (LightGBM), the sanity baseline of variants gbdt and gbdt-learn.

    ``max_step`` bounds what a leaf adds to a logit before the learning rate: where conversions are rare and the others'
    weights large, the Newton step of a leaf of conversions alone is next to endless.
    """

    leaves: Annotated[int, Field(ge=2)] = 31
    rounds: Count = 300
    patience: Count = 20
    learning_rate: Rate = 0.1
    min_leaf: Count = 50
    max_step: Rate = 1.0


class RankingSettings(Section):
    """The ads ranker: a conversion model on exposures, with and without the released features (docs/ranking.md).

    ``mode`` score ranks with what the run ``ranker`` saved (null: the newest that trained), from ``since`` on or from
    where its test began. ``variants``: base; learn: released user and item vector and their dot product beside it;
    learn-adaptor: LEARN's fusion module; gbdt, gbdt-learn: trees over the same. Exposures are cut by time into train,
    validation and test: by shares, or at two times. ``ids`` hashed: ``buckets`` rows a field; lookup: a row an id
    with ``min_count`` training exposures, and one for all others.
    """

    mode: Literal["train", "score"] = "train"
    ranker: str | None = None
    since: str | None = None
    clock: Literal["published", "as_of"] = "published"
    variants: list[Variant] = Field(default_factory=lambda: list(get_args(Variant)), min_length=1)
    model: Literal["mlp", "dcn_v2"] = "dcn_v2"
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default_factory=lambda: [2024, 2025, 2026], min_length=1)
    train_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.7
    validation_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    validation_from: str | None = None
    test_from: str | None = None
    ids: Literal["lookup", "hashed"] = "lookup"
    buckets: Count = 4096
    min_count: Count = 2
    context: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    id_dim: Count = 16
    hidden: list[Count] = Field(default_factory=lambda: [64, 32], min_length=1)
    cross_layers: Count = 2
    cross_rank: Count | None = 32
    fusion_dim: Count = 32
    auxiliary_weight: Annotated[float, Field(ge=0.0)] = 0.5
    epochs: Count = 10
    patience: Count = 1
    batch_size: Count = 1024
    learning_rate: Rate = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-5
    threads: Count | None = None
    trees: TreesSettings = TreesSettings()
    cohorts: CohortsSettings = CohortsSettings()
    calibration_bins: Count = 10
    bootstrap_samples: Count = 200

    @field_validator("since", "validation_from", "test_from")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        return iso_time(value)

    @model_validator(mode="after")
    def _parts_agree(self) -> RankingSettings:
        for name in ("variants", "seeds", "context"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name} names one twice: {getattr(self, name)}")
        if self.train_share + self.validation_share >= 1:
            raise ValueError(
                f"train_share {self.train_share} and validation_share {self.validation_share} leave nothing for test"
            )
        if (self.validation_from is None) != (self.test_from is None):
            raise ValueError("validation_from and test_from belong together: give both or neither")
        if self.validation_from and self.test_from and as_micros(self.validation_from) >= as_micros(self.test_from):
            raise ValueError(f"validation_from {self.validation_from} is not before test_from {self.test_from}")
        if self.mode == "train" and (self.ranker or self.since):
            raise ValueError("ranker and since are for mode score")
        return self
