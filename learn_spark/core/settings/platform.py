"""Settings of the Spark session, of quality rules, and of the stages of a run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from learn_spark.core.settings.base import Count, Section
from learn_spark.core.storage.path import S3Access


class SparkSettings(Section):
    """The Spark session. Options of spark-submit override these settings."""

    master: str | None = None
    """Spark's master, such as local[*] for all cores of this machine; null: --master of spark-submit, else local[*]."""
    driver_memory: str = "3g"
    """Memory of the driver; in local mode the workers share it."""
    shuffle_partitions: Count | None = None
    """Partitions of a shuffle. Recommended: 2 to 4 per core, with about 128 MB each. null: 4 on this machine, Spark's
    own number on a cluster."""
    conf: dict[str, str] = Field(default_factory=dict)
    """Further Spark settings by name; on the command line --set spark.conf.NAME=VALUE."""


class StorageSettings(Section):
    """How S3 and stores with its interface are reached. Keys are never settings: they come from the environment
    (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN), a profile, or the role of the machine."""

    endpoint: str | None = Field(default=None, pattern=r"^https?://[^@/]+$")
    """URL of a server other than AWS, such as http://minio:9000; null: AWS_ENDPOINT_URL, else AWS."""
    region: str | None = None
    """Region of the bucket; null: AWS_REGION or AWS_DEFAULT_REGION, us-east-1 for other servers than AWS."""
    path_style: bool | None = None
    """Whether requests have the bucket in the path and not in the host; null: for other servers than AWS."""

    def s3(self) -> S3Access:
        """What paths carry of these settings."""
        return S3Access(self.endpoint, self.region, self.path_style)


class CatalogSettings(Section):
    """The tables' names in a catalog of Spark, for SQL (docs/storage.md). Paths stay the truth."""

    name: str = Field(default="spark_catalog", pattern=r"^\w+$")
    """The catalog: spark_catalog for a Hive metastore; another one needs spark.conf.spark.sql.catalog.NAME."""
    namespace: str = Field(default="learn", pattern=r"^\w+$")
    """The schema (database) of the tables; it is made if it is not there."""
    metastore: str | None = Field(default=None, pattern=r"^(thrift://[^@/]+|[^:;]+)$")
    """The Hive metastore: thrift://host:port of its service, or a folder for a Derby database, which one process uses
    at a time; null: that of Spark's own configuration (hive-site.xml, spark-defaults.conf)."""
    after_run: bool = False
    """Whether a run that changed something registers the tables at its end."""

    @property
    def schema_name(self) -> str:
        """Catalog and schema as SQL writes them."""
        return f"{self.name}.{self.namespace}"


class RuleSettings(Section):
    """Bounds and severity of a quality rule that replace those of its contract."""

    least: float | None = None
    """Smallest value that passes; null: no bound."""
    most: float | None = None
    """Largest value that passes; null: no bound."""
    severity: Literal["fail", "warn"] = "fail"
    """fail: a broken rule fails the gate; warn: it is reported as a warning."""


class QualitySettings(Section):
    """The quality gates; schemas/*.yaml list their rules."""

    rules: dict[str, RuleSettings] = Field(default_factory=dict)
    """Changed rules by table and rule: {interactions.age_days: {most: 2}}. On the command line
    --set quality.rules.interactions.age_days.most=2."""


class RetentionSettings(Section):
    """How long ``learn-spark retain`` keeps what no kept release, model, report or newest run refers to."""

    records_days: Count = 180
    """Days to keep reports, pages of gates, settings of runs, rankings, studies and searches."""
    cache_days: Count = 30
    """Days to keep logs, and what lies in caches beside the newest copy of each kind."""
    quarantine_days: Count | None = None
    """Days to keep refused rows, raw data of persons among them, also where their item has not arrived; null: for
    good."""


class PipelineSettings(Section):
    """The stages of ``learn-spark run``."""

    stages: list[str] = Field(min_length=1)
    """The stages, in order of execution."""
