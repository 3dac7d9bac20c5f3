"""The interface of a source: files in, two frames of raw text columns out. Typing and judging are ingest's work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from learn_spark.settings.schema import Source as SourceSettings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ITEM_COLUMNS = ("item_id", "title", "category", "brand", "price", "keywords", "attributes", "updated_at")
EVENT_COLUMNS = ("event_id", "user_id", "item_id", "event_type", "value", "event_time")
TimeUnit = Literal["s", "ms", "us", "iso"]


@dataclass(frozen=True)
class RawTables:
    """Raw rows. ``items`` has ITEM_COLUMNS, ``events`` EVENT_COLUMNS, all strings, null where the source has none;
    both also have ``raw`` (the row as JSON) and ``malformed`` (boolean: the line is not of the format at all).
    """

    items: DataFrame
    events: DataFrame
    time_unit: TimeUnit


class Source(Protocol):
    """One raw format."""

    def files(self, folder: Path) -> list[Path]:
        """The files it reads; LocationError names the one that is missing."""
        ...

    def read(self, spark: SparkSession, folder: Path) -> RawTables:
        """The raw rows."""
        ...


def source(settings: SourceSettings) -> Source:
    """The source that the settings name."""
    from learn_spark.sources.generic_csv import GenericCsv
    from learn_spark.sources.movielens_100k import MovieLens100K

    return GenericCsv(settings) if settings.format == "csv" else MovieLens100K()
