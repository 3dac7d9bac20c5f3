"""Files read, typed and checked as ingest does it, but not merged into the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from learn_spark.core.settings import Settings
from learn_spark.core.storage.path import storage_path
from learn_spark.data.sources.formats import source_of
from learn_spark.data.sources.landing import Landing


def landed_rows(spark: SparkSession, settings: Settings, place: Path) -> tuple[list[Any], list[Any], list[Any]]:
    """(good items, good events, refused events) of all files of a source of one's own."""
    source, folder = source_of(settings.source), Path(settings.source.path)
    landing = Landing(spark, source, folder, source.files(folder), storage_path(place), settings.source.time_formats)
    items = landing.items()
    assert items is not None
    events = landing.events(items.good().select("item_id"))
    assert events is not None
    rows = events.frame.collect()
    return items.good().collect(), [row for row in rows if not row.reasons], [row for row in rows if row.reasons]
