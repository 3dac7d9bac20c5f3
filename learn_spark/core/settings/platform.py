"""The Spark session, changed rules of quality gates, and the stages of a run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from learn_spark.core.settings.base import Count, Section


class SparkSettings(Section):
    """The Spark session. On a cluster, spark-submit's own options come first."""

    master: str | None = None
    """Spark's master, such as local[*] for all cores of this machine; null: spark-submit's --master."""
    driver_memory: str = "3g"
    """Memory of the driver, which in local mode is that of the workers too."""
    shuffle_partitions: Count = 4
    """Partitions of a shuffle. 2 to 4 a core, so that one takes about 128 MB."""
    conf: dict[str, str] = Field(default_factory=dict)
    """Further settings of Spark by their names; on the command line --set spark.conf.NAME=VALUE."""


class RuleSettings(Section):
    """A rule of a quality gate with other bounds than its contract's."""

    least: float | None = None
    """Least value that passes; null: no bound."""
    most: float | None = None
    """Largest value that passes; null: no bound."""
    severity: Literal["fail", "warn"] = "fail"
    """Whether a broken rule fails the gate or is a warning."""


class QualitySettings(Section):
    """The quality gates; schemas/*.yaml list their rules."""

    rules: dict[str, RuleSettings] = Field(default_factory=dict)
    """Rules with other bounds, by table and rule: {interactions.age_days: {most: 2}}. On the command line
    --set 'quality.rules={interactions.age_days: {most: 2}}'."""


class PipelineSettings(Section):
    """What ``learn-spark run`` does."""

    stages: list[str] = Field(min_length=1)
    """The stages, in the order in which they run."""
