"""Counts that ride along with a write come back, and where Spark drops their part of the plan the wait ends."""

from __future__ import annotations

from pathlib import Path

from pyspark.sql import Observation, SparkSession
from pyspark.sql import functions as F

from learn_spark.core.tables.observed import observed


def test_what_was_written_is_counted(spark: SparkSession, tmp_path: Path) -> None:
    seen = Observation()
    rows = spark.range(7).observe(seen, F.count(F.lit(1)).alias("rows"))
    rows.write.parquet(f"file:{tmp_path / 'out'}")
    assert observed(seen, spark) == {"rows": 7}


def test_an_observation_that_never_comes_is_none(spark: SparkSession, tmp_path: Path) -> None:
    """Adaptive execution finds both sides of the join empty and cuts out the part that counts."""
    seen = Observation()
    none = spark.range(100).where(F.rand(1) > 2)
    counted = none.repartition(2, "id").observe(seen, F.count(F.lit(1)).alias("rows"))
    joined = counted.repartition(3, "id").join(none.withColumnRenamed("id", "id2"), F.col("id") == F.col("id2"))
    joined.write.parquet(f"file:{tmp_path / 'out'}")
    assert observed(seen, spark) is None
