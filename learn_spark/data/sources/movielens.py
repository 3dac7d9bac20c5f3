"""MovieLens in the layouts of GroupLens: 1M and 10M (.dat files), or 20M, 25M, 32M and latest (.csv files with
headers).

Source: Harper and Konstan 2015, The MovieLens Datasets (GroupLens; research use, no redistribution).
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

from learn_spark.core.storage.path import StoragePath
from learn_spark.data.sources.csv_files import read_csv
from learn_spark.data.sources.location import LocationError
from learn_spark.data.sources.source import EVENT_COLUMNS, ITEM_COLUMNS, RawFile, TimeUnit, find_files, of_kind
from learn_spark.data.sources.text_head import first_line
from learn_spark.data.sources.text_lines import shape, spark_path, with_source_file

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MOVIE_FIELDS = ("movieId", "title", "genres")
RATING_FIELDS = ("userId", "movieId", "rating", "timestamp")
_YEAR = r"\s*\((\d{4})\)\s*$"
_CHUNK_BYTES = 1 << 20


class MovieLens:
    """Films with their genres, and ratings of 0.5 or 1 to 5. Tags, links and users' attributes are not read."""

    time_unit: TimeUnit = "s"

    def files(self, folder: StoragePath) -> list[RawFile]:
        """The two files of the layout that exists. Raises LocationError where there is none, both or half of one."""
        layouts = {
            kind: [
                *find_files(folder, f"movies.{kind}", ["items"], optional=True),
                *find_files(folder, f"ratings.{kind}", ["events"], optional=True),
            ]
            for kind in ("dat", "csv")
        }
        present = [kind for kind, files in layouts.items() if files]
        if len(present) != 1:
            fault = "both .dat and .csv files: keep one of the two" if present else "no movies.dat and no movies.csv"
            raise LocationError(f"source.path: there are {fault} in {folder}")
        (kind,) = present
        return [
            *find_files(folder, f"movies.{kind}", ["items"]),
            *find_files(folder, f"ratings.{kind}", ["events"]),
        ]

    def items(self, spark: SparkSession, folder: StoragePath, files: Sequence[RawFile]) -> DataFrame:
        """Films: title without its year, genres with blanks between them (category), year (attributes)."""
        from pyspark.sql import functions as F

        rows = _read(spark, folder, of_kind(files, "items"), MOVIE_FIELDS)
        title, genres = F.col("f_title"), F.col("f_genres")
        return shape(
            rows,
            ITEM_COLUMNS,
            {
                "item_id": F.col("f_movieId"),
                "title": F.regexp_replace(title, _YEAR, ""),
                "category": F.when(genres != "(no genres listed)", F.replace(genres, F.lit("|"), F.lit(" "))),
                "attributes": F.regexp_extract(title, _YEAR, 1),
            },
        )

    def events(self, spark: SparkSession, folder: StoragePath, files: Sequence[RawFile]) -> DataFrame:
        """Ratings with the stars as value."""
        from pyspark.sql import functions as F

        return shape(
            _read(spark, folder, of_kind(files, "events"), RATING_FIELDS),
            EVENT_COLUMNS,
            {
                "user_id": F.col("f_userId"),
                "item_id": F.col("f_movieId"),
                "event_type": F.lit("rating"),
                "value": F.col("f_rating"),
                "event_time": F.col("f_timestamp"),
            },
        )


def _read(spark: SparkSession, folder: StoragePath, files: Sequence[RawFile], fields: Sequence[str]) -> DataFrame:
    """``f_<field>`` and ROW_COLUMNS."""
    if all(file.path.suffix == ".csv" for file in files):
        return read_csv(spark, folder, files, needed=fields)
    return reduce(lambda a, b: a.unionByName(b), [_read_dat(spark, folder, file, fields) for file in files])


def _read_dat(spark: SparkSession, folder: StoragePath, file: RawFile, fields: Sequence[str]) -> DataFrame:
    from pyspark.sql import functions as F

    first_line(file)
    read = with_source_file(spark.read.text(spark_path(file.path)), folder)
    # Spark's text reader passes bytes through unchanged.
    read = read.withColumn("line", F.decode(F.col("value").cast("binary"), _encoding(file)))
    read = read.where(F.trim("line") != "").withColumn("parts", F.split("line", "::", -1))
    if fields == MOVIE_FIELDS:
        # A title may contain "::" too: it is the text between the first and the last separator.
        malformed = F.size("parts") < 3
        first, last = F.element_at("parts", 1), F.substring_index("line", "::", -1)
        title = F.substring("line", F.length(first) + 3, F.length("line") - F.length(first) - F.length(last) - 4)
        values = [first, title, last]
    else:
        malformed = F.size("parts") != len(fields)
        values = [F.get("parts", n) for n in range(len(fields))]
    row_json = F.to_json(F.struct(*[value.alias(name) for name, value in zip(fields, values, strict=True)]))
    return read.select(
        *[F.when(~malformed, value).alias(f"f_{name}") for name, value in zip(fields, values, strict=True)],
        F.when(malformed, F.to_json(F.struct("line"))).otherwise(row_json).alias("raw"),
        malformed.alias("malformed"),
        "source_file",
    )


def _encoding(file: RawFile) -> str:
    """UTF-8 (10M) if the complete file is valid UTF-8, else ISO-8859-1 (1M)."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with file.path.open() as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return "ISO-8859-1"
    return "UTF-8"
