"""Frames written to Parquet for the duration of a run, so that their sources are read once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from learn_spark.core.storage.path import StoragePath

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def landed(frame: DataFrame, path: StoragePath) -> DataFrame:
    """``frame`` as read back from ``path``, a new folder that it is written to."""
    frame.write.mode("overwrite").parquet(path.spark)
    return frame.sparkSession.read.schema(frame.schema).parquet(path.spark)
