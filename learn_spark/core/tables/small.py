"""Plans for few rows: one task and one job an action, where Spark would spread the work and plan it step by step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Up to so many rows and bytes one task does the work as fast as several, and results travel as one Arrow table.
SMALL_ROWS, SMALL_BYTES = 200_000, 32 << 20
# Up to so many rows compiling a query takes longer than interpreting it.
TINY_ROWS = 30_000
# Adaptive execution makes every shuffle and every broadcast a job of its own.
_ONE_JOB = {
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.autoBroadcastJoinThreshold": "-1",
    # The sources of merges are rows in memory or files that do not change.
    "spark.databricks.delta.merge.materializeSource": "none",
}
_INTERPRETED = {"spark.sql.codegen.wholeStage": "false", "spark.sql.codegen.factoryMode": "NO_CODEGEN"}


@contextmanager
def small_plans(spark: SparkSession, rows: int) -> Iterator[None]:
    """Plan what is inside for ``rows`` rows, the most that it reads from any table; for many rows nothing changes.

    Spark's configuration is changed, and restored at the end. What the settings give in ``spark.conf`` stays.
    """
    changes = (_ONE_JOB if rows <= SMALL_ROWS else {}) | (_INTERPRETED if rows <= TINY_ROWS else {})
    given = spark.sparkContext._conf
    changes = {key: value for key, value in changes.items() if key in _OURS or not given.contains(key)}
    before = {key: spark.conf.get(key, None) for key in changes}
    for key, value in changes.items():
        spark.conf.set(key, value)
    try:
        yield
    finally:
        for key, earlier in before.items():
            if earlier is None:
                spark.conf.unset(key)
            else:
                spark.conf.set(key, earlier)


# learn-spark itself gives these to every session, so that their being there is nobody's choice.
_OURS = frozenset({"spark.sql.shuffle.partitions"})
