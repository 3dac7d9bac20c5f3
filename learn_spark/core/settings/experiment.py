"""The settings of ``learn-spark ab-report``: logs, arms, times, metrics, cohorts, and error rates."""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from learn_spark.core.settings.base import Count, Rate, Section
from learn_spark.core.settings.platform import QualitySettings, SparkSettings, StorageSettings
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
# Columns that a treatment may change; a cohort must not depend on them.
OUTCOMES = ("arm", "converted", "revenue")


class AssignmentSettings(Section):
    """The assignment of users by ``learn_spark.ads.experiments.assignment.arm``. Logged arms are checked against it,
    and rows without an arm get the assigned one.
    """

    salt: str
    """The salt of the hash."""
    experiment: str | None = None
    """The experiment's name in the hash; null: the name of the report."""
    traffic: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of all users in the experiment."""


class ExperimentCohortSettings(Section):
    """A partition of users or exposures into groups: by an expression over the log's columns, or by earlier
    exposures."""

    by: str | None = Field(default=None, min_length=1)
    """A Spark SQL expression over the log's columns; its values are the groups."""
    of: Literal["user", "exposure"] = "user"
    """What ``by`` groups. user: each user is in the group of their first exposure in the experiment, and the users of a
    group are compared; exposure: all users are compared on the exposures of a group.
    """
    history: Literal["user", "item"] | None = None
    """By earlier exposures of the user, or item, strictly before the start: cold (fewer than the first threshold),
    long-tail (fewer than the second), other.
    """
    thresholds: list[Count] = Field(default_factory=lambda: [1, 20], min_length=2, max_length=2)
    """history: the two thresholds, in exposures."""

    @model_validator(mode="after")
    def _one_way(self) -> ExperimentCohortSettings:
        if (self.by is None) == (self.history is None):
            raise ValueError("a cohort needs one of by (an expression over the log's columns) and history (user, item)")
        if self.thresholds[0] >= self.thresholds[1]:
            raise ValueError(f"thresholds must rise, got {self.thresholds}")
        if self.by and (named := [name for name in OUTCOMES if re.search(rf"\b{name}\b", self.by, re.IGNORECASE)]):
            raise ValueError(f"a cohort must not depend on {', '.join(named)}, which the treatment may change")
        return self

    @property
    def of_users(self) -> bool:
        """Whether the groups are groups of users (else of exposures)."""
        return self.history == "user" or (self.history is None and self.of == "user")


class ExperimentSettings(Section):
    """The settings of the analysis of an experiment (docs/experiments.md)."""

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    """Name of the report and of its files."""
    workspace: str = Field(default="var/experiments", min_length=1)
    """Folder of the reports."""
    path: str = Field(min_length=1)
    """Folder of the logs; their files are named relative to it."""
    logs: Annotated[list[LogSettings], Field(min_length=1)]
    """Logs of exposures and outcomes, those of the pre-experiment period included."""
    control: str = "control"
    """The arm that the other arms are compared with."""
    shares: dict[str, Rate] = Field(default_factory=dict)
    """The intended shares of the arms, on any scale; empty: equal shares."""
    assignment: AssignmentSettings | None = None
    """How users were assigned; null: logged arms are not checked."""
    start: str | None = None
    """Start of the experiment; null: the time of the first row with an arm."""
    end: str | None = None
    """End of the experiment; null: no end."""
    pre_days: Annotated[float, Field(ge=0.0)] | None = None
    """Days before the start that CUPED uses; null: all; 0: none."""
    metrics: list[MetricName] = Field(default_factory=lambda: list(get_args(MetricName)), min_length=1)
    """Metrics to compare."""
    primary: MetricName | None = None
    """The primary metric; null: the first one."""
    cohorts: dict[str, ExperimentCohortSettings] = Field(default_factory=dict)
    """Cohorts by name."""
    cuped: bool = True
    """Whether variance is reduced by the pre-experiment period."""
    alpha: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    """Significance level; intervals are at 1 - alpha."""
    correction: Literal["holm", "bonferroni", "benjamini-hochberg", "none"] = "holm"
    """Correction of p for multiple comparisons."""
    power: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.8
    """Power at which the smallest detectable lift and the users needed are computed."""
    effect: Rate = 0.02
    """The lift for which power and the number of users needed are computed."""
    bootstrap_samples: Annotated[int, Field(ge=0)] = 1000
    """Bootstrap resamples of users; 0: no bootstrap."""
    seed: Annotated[int, Field(ge=0)] = 2024
    """Seed of the bootstrap and of the A/A splits."""
    min_users: Annotated[int, Field(ge=10)] = 100
    """Minimum number of users of an arm in a group for a comparison."""
    ratio_alpha: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.001
    """The sample ratio check fails if its p is below this value."""
    max_two_arms: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    """Maximum share of users with rows in two arms; these users are excluded."""
    aa_splits: Annotated[int, Field(ge=0)] = 0
    """Above 0: an A/A test instead of a comparison. The control's users are split in two at random this many times, and
    false alarms are counted.
    """
    spark: SparkSettings = SparkSettings()
    """The Spark session."""
    storage: StorageSettings = StorageSettings()
    """How logs in S3 are reached."""
    quality: QualitySettings = QualitySettings()
    """Changed quality rules of exposures."""

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
    def _parts_agree(self) -> ExperimentSettings:
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
