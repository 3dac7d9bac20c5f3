"""MovieLens-100K as in the package recbole: ml-100k.item and ml-100k.inter, tab-separated, with typed headers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from learn_spark.core.storage.path import StoragePath
from learn_spark.data.sources.csv_files import read_csv
from learn_spark.data.sources.source import EVENT_COLUMNS, ITEM_COLUMNS, RawFile, TimeUnit, find_files, of_kind
from learn_spark.data.sources.text_lines import shape

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


class MovieLens100K:
    """943 users, 1,682 films, 100,000 ratings with times in seconds (GroupLens; research use, no redistribution)."""

    time_unit: TimeUnit = "s"

    def files(self, folder: StoragePath) -> list[RawFile]:
        """The two files."""
        return [*find_files(folder, "ml-100k.item", ["items"]), *find_files(folder, "ml-100k.inter", ["events"])]

    def items(self, spark: SparkSession, folder: StoragePath, files: Sequence[RawFile]) -> DataFrame:
        """Films with title, genres (category) and year (attributes)."""
        return _read(
            spark,
            folder,
            of_kind(files, "items"),
            ITEM_COLUMNS,
            {
                "item_id": "item_id:token",
                "title": "movie_title:token_seq",
                "category": "class:token_seq",
                "attributes": "release_year:token",
            },
        )

    def events(self, spark: SparkSession, folder: StoragePath, files: Sequence[RawFile]) -> DataFrame:
        """Ratings of 1 to 5."""
        from pyspark.sql import functions as F

        columns = {
            "user_id": "user_id:token",
            "item_id": "item_id:token",
            "value": "rating:float",
            "event_time": "timestamp:float",
        }
        rows = _read(spark, folder, of_kind(files, "events"), EVENT_COLUMNS, columns)
        return rows.withColumn("event_type", F.lit("rating"))


def _read(
    spark: SparkSession, folder: StoragePath, files: Sequence[RawFile], names: Sequence[str], columns: dict[str, str]
) -> DataFrame:
    from pyspark.sql import functions as F

    rows = read_csv(spark, folder, files, separator="\t", quote="", needed=list(columns.values()))
    return shape(rows, names, {name: F.col(f"`f_{field}`") for name, field in columns.items()})
