"""The Spark session, changed rules of quality gates, and the stages of a run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from learn_spark.core.settings.base import Count, Section


class SparkSettings(Section):
    """The Spark session. On a cluster, spark-submit's own options come first."""

    master: str | None = None
    driver_memory: str = "3g"
    shuffle_partitions: Count = 4
    conf: dict[str, str] = Field(default_factory=dict)


class RuleSettings(Section):
    """What a workspace wants otherwise than the contract's rule says. A bound of null is no bound."""

    least: float | None = None
    most: float | None = None
    severity: Literal["fail", "warn"] = "fail"


class QualitySettings(Section):
    """The gates (schemas/*.yaml list the rules): ``rules: {interactions.age_days: {most: 2}}`` changes one. On the
    command line: ``--set 'quality.rules={interactions.age_days: {most: 2}}'``.
    """

    rules: dict[str, RuleSettings] = Field(default_factory=dict)


class PipelineSettings(Section):
    """Which stages ``learn-spark run`` takes, in this order."""

    stages: list[str] = Field(min_length=1)
