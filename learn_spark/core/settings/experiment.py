"""What ``learn-spark ab-report`` is told: the logs, the arms, the times, the cohorts, and how sure one wants to be."""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from learn_spark.core.settings.base import Count, Rate, Section
from learn_spark.core.settings.platform import QualitySettings, SparkSettings
from learn_spark.core.settings.source import LogSettings
from learn_spark.core.times import as_micros

MetricName = Literal[
    "revenue_per_user",
    "conversions_per_user",
    "converting_users",
    "conversion_rate",
    "revenue_per_exposure",
    "exposures_per_user",
]
# What a treatment may change; who is in a cohort must not hang on it.
OUTCOMES = ("arm", "converted", "revenue")


class Assignment(Section):
    """How users were assigned: ``learn_spark.ads.experiments.assignment.arm`` under these names. Logged arms are
    checked against it, and rows without an arm get theirs. ``experiment``: the report's ``name`` if left out.
    """

    salt: str
    experiment: str | None = None
    traffic: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0


class Cohort(Section):
    """A way to divide users, or exposures: by a Spark SQL expression over the log's columns, or by history.

    ``of`` user: everybody is in one group, that of the first exposure in the experiment, and groups of users are
    compared. ``of`` exposure: all users are compared, by what happened on the group's exposures alone (cold items).
    ``history`` user or item: by earlier exposures of the user or item, strictly before the start: cold (fewer than the
    first of ``thresholds``), long-tail (fewer than the second), other.
    """

    by: str | None = Field(default=None, min_length=1)
    of: Literal["user", "exposure"] = "user"
    history: Literal["user", "item"] | None = None
    thresholds: list[Count] = Field(default_factory=lambda: [1, 20], min_length=2, max_length=2)

    @model_validator(mode="after")
    def _one_way(self) -> Cohort:
        if (self.by is None) == (self.history is None):
            raise ValueError("a cohort needs one of by (an expression over the log's columns) and history (user, item)")
        if self.thresholds[0] >= self.thresholds[1]:
            raise ValueError(f"thresholds must rise, got {self.thresholds}")
        if self.by and (named := [name for name in OUTCOMES if re.search(rf"\b{name}\b", self.by, re.IGNORECASE)]):
            raise ValueError(
                f"a cohort must not hang on {', '.join(named)}: who is in it would then depend on the treatment"
            )
        return self

    @property
    def of_users(self) -> bool:
        """Whether it divides users (else exposures)."""
        return self.history == "user" or (self.history is None and self.of == "user")


class Experiment(Section):
    """All that one report is about. ``shares`` are the arms' intended shares (any scale; equal if left out).

    ``start``: the first time at which a row has an arm, if left out. ``pre_days``: how much before it serves CUPED (all
    there is, if left out; 0: none). ``aa_splits``: instead of comparing the arms, halve the control's users at random
    so many times, and count false alarms.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    workspace: str = Field(default="var/experiments", min_length=1)
    path: str = Field(min_length=1)
    logs: Annotated[list[LogSettings], Field(min_length=1)]
    control: str = "control"
    shares: dict[str, Rate] = Field(default_factory=dict)
    assignment: Assignment | None = None
    start: str | None = None
    end: str | None = None
    pre_days: Annotated[float, Field(ge=0.0)] | None = None
    metrics: list[MetricName] = Field(default_factory=lambda: list(get_args(MetricName)), min_length=1)
    primary: MetricName | None = None
    cohorts: dict[str, Cohort] = Field(default_factory=dict)
    cuped: bool = True
    alpha: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    correction: Literal["holm", "bonferroni", "benjamini-hochberg", "none"] = "holm"
    power: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.8
    effect: Rate = 0.02
    bootstrap_samples: Annotated[int, Field(ge=0)] = 1000
    seed: Annotated[int, Field(ge=0)] = 2024
    min_users: Annotated[int, Field(ge=10)] = 100
    ratio_alpha: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.001
    max_two_arms: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    aa_splits: Annotated[int, Field(ge=0)] = 0
    spark: SparkSettings = SparkSettings()
    quality: QualitySettings = QualitySettings()

    @field_validator("start", "end")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                as_micros(value)
            except ValueError:
                raise ValueError(f"{value!r} is not an ISO time such as 2024-05-01T00:00:00") from None
        return value

    @model_validator(mode="after")
    def _parts_agree(self) -> Experiment:
        if self.start is not None and self.end is not None and as_micros(self.start) >= as_micros(self.end):
            raise ValueError(f"start {self.start} is not before end {self.end}")
        if self.primary is not None and self.primary not in self.metrics:
            raise ValueError(f"primary {self.primary} is not one of metrics ({', '.join(self.metrics)})")
        if self.shares and self.control not in self.shares:
            raise ValueError(f"control {self.control} is not one of shares ({', '.join(self.shares)})")
        if self.assignment is not None and len(self.shares) < 2:
            raise ValueError("assignment needs shares: the arms that users were assigned to")
        if not self.alpha < self.power:
            raise ValueError(f"power {self.power} must be above alpha {self.alpha}")
        for name in self.cohorts:
            if not re.fullmatch(r"[A-Za-z]\w*", name):
                raise ValueError(f"cohorts.{name}: a cohort's name is a word")
        return self
