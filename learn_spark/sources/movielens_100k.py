"""MovieLens-100K as the package recbole carries it: ml-100k.item and ml-100k.inter, tab-separated, typed headers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from learn_spark.sources.delimited import read_delimited
from learn_spark.sources.location import LocationError
from learn_spark.sources.source import RawTables

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class MovieLens100K:
    """943 users, 1,682 films, 100,000 ratings with times in seconds (GroupLens; research use, no redistribution)."""

    def files(self, folder: Path) -> list[Path]:
        """The two files."""
        paths = [folder / "ml-100k.item", folder / "ml-100k.inter"]
        for path in paths:
            if not path.is_file():
                raise LocationError(f"source.path: there is no {path.name} in {folder}")
        return paths

    def read(self, spark: SparkSession, folder: Path) -> RawTables:
        """Films with title, genres (category) and year (attributes); ratings as events."""
        from pyspark.sql import functions as F

        items_path, events_path = self.files(folder)
        items = read_delimited(
            spark,
            items_path,
            "\t",
            {
                "item_id:token": "item_id",
                "movie_title:token_seq": "title",
                "class:token_seq": "category",
                "release_year:token": "attributes",
            },
        )
        events = read_delimited(
            spark,
            events_path,
            "\t",
            {
                "user_id:token": "user_id",
                "item_id:token": "item_id",
                "rating:float": "value",
                "timestamp:float": "event_time",
            },
        )
        nothing = F.lit(None).cast("string")
        return RawTables(
            items=items.select(
                "item_id",
                "title",
                "category",
                nothing.alias("brand"),
                nothing.alias("price"),
                nothing.alias("keywords"),
                "attributes",
                nothing.alias("updated_at"),
                "raw",
                "malformed",
            ),
            events=events.select(
                nothing.alias("event_id"),
                "user_id",
                "item_id",
                F.lit("rating").alias("event_type"),
                "value",
                "event_time",
                "raw",
                "malformed",
            ),
            time_unit="s",
        )
