"""Frames written down for the time of a run, so that what they are made of is read once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def staged(frame: DataFrame, path: Path) -> DataFrame:
    """The frame written to ``path`` (a new folder) and read from there."""
    frame.write.mode("overwrite").parquet(f"file:{path}")
    return frame.sparkSession.read.schema(frame.schema).parquet(f"file:{path}")
