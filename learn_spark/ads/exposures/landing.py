"""Frames written to Parquet for the duration of a run, so that their sources are read once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def landed(frame: DataFrame, path: Path) -> DataFrame:
    """``frame`` as read back from ``path``, a new folder that it is written to."""
    frame.write.mode("overwrite").parquet(f"file:{path}")
    return frame.sparkSession.read.schema(frame.schema).parquet(f"file:{path}")
