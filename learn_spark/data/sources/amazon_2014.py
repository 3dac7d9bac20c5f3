"""Amazon reviews up to 2014 by category: meta_<category>.json, and reviews_<category>.json or ratings_<category>.csv.

Source: McAuley, Targett, Shi and van den Hengel 2015; He and McAuley 2016 (research use). All files may be gzip.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from typing import TYPE_CHECKING

import pyarrow as pa

from learn_spark.core.storage.path import StoragePath
from learn_spark.data.sources.csv_files import read_csv
from learn_spark.data.sources.location import LocationError
from learn_spark.data.sources.source import (
    EVENT_COLUMNS,
    ITEM_COLUMNS,
    FileKind,
    RawFile,
    TimeUnit,
    find_files,
    of_kind,
)
from learn_spark.data.sources.text_lines import read_json_lines, shape

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# Parsing a line takes many times its memory. The longest lines of the data have some 100,000 characters.
LONGEST_LINE = 4_000_000
_LINES = "value string, source_file string, line string"
_CATEGORY = re.compile(r"(?:meta_|reviews_|ratings_)?(.+?)(?:_\d+)?\.(?:json|csv)(?:\.gz)?")


class Amazon2014:
    """Products and reviews. Of the full reviews, their k-core (``_5``) and the bare ratings, one must be chosen."""

    time_unit: TimeUnit = "s"

    def files(self, folder: StoragePath) -> list[RawFile]:
        """The files of all categories. Raises LocationError where products or reviews are missing or present twice."""
        items = find_any(folder, ("meta_*.json", "meta_*.json.gz"), "items")
        patterns = ("ratings_*.csv", "ratings_*.csv.gz", "reviews_*.json", "reviews_*.json.gz")
        events = find_any(folder, patterns, "events")
        one_per_category(folder, items)
        one_per_category(folder, events)
        return [*items, *events]

    def items(self, spark: SparkSession, folder: StoragePath, files: Sequence[RawFile]) -> DataFrame:
        """Products: the first category path joined by `` > ``, the description as attributes. HTML entities stay."""
        from pyspark.sql import functions as F

        fields = {name: f"$.{name}" for name in ("asin", "title", "price", "brand", "description")}
        fields["category"] = "$.categories[0] as array<string>"
        rows = read_json_lines(spark, folder, of_kind(files, "items"), fields, lines=_literals_to_json)
        return shape(
            rows,
            ITEM_COLUMNS,
            {
                "item_id": F.col("f_asin"),
                "title": F.col("f_title"),
                "category": F.array_join("f_category", " > "),
                "brand": F.col("f_brand"),
                "price": F.col("f_price"),
                "attributes": F.col("f_description"),
            },
        )

    def events(self, spark: SparkSession, folder: StoragePath, files: Sequence[RawFile]) -> DataFrame:
        """Reviews with the stars as value. Times are whole days."""
        files = of_kind(files, "events")
        ratings = [file for file in files if file.path.name.startswith("ratings_")]
        full = [file for file in files if file not in ratings]
        names = ("reviewerID", "asin", "overall", "unixReviewTime")
        frames = []
        if ratings:
            frames.append(review_events(read_csv(spark, folder, ratings, header=names)))
        if full:
            frames.append(review_events(read_json_lines(spark, folder, full, {name: f"$.{name}" for name in names})))
        return reduce(lambda a, b: a.unionByName(b), frames)


def find_any(folder: StoragePath, patterns: Sequence[str], kinds: FileKind) -> list[RawFile]:
    """Files that match one of the patterns, by name. Raises LocationError where there is none."""
    files = [file for pattern in patterns for file in find_files(folder, pattern, [kinds], optional=True)]
    if not files:
        raise LocationError(f"source.path: there is no {' or '.join(patterns)} in {folder}")
    return sorted(files, key=lambda file: file.name)


def one_per_category(folder: StoragePath, files: Iterable[RawFile]) -> None:
    """Raise LocationError where two files have one category: full and k-core, ratings and reviews, plain and gzip."""
    seen: dict[str, str] = {}
    for file in files:
        match = _CATEGORY.fullmatch(file.path.name)
        category = match[1] if match else file.name
        if other := seen.get(category):
            raise LocationError(
                f"source.path: {other} and {file.name} in {folder} both have the category {category}; keep one of them"
            )
        seen[category] = file.name


def review_events(rows: DataFrame) -> DataFrame:
    """EVENT_COLUMNS from rows with reviewerID, asin, overall and unixReviewTime."""
    from pyspark.sql import functions as F

    return shape(
        rows,
        EVENT_COLUMNS,
        {
            "user_id": F.col("f_reviewerID"),
            "item_id": F.col("f_asin"),
            "event_type": F.lit("review"),
            "value": F.col("f_overall"),
            "event_time": F.col("f_unixReviewTime"),
        },
    )


def _literals_to_json(lines: DataFrame) -> DataFrame:
    return lines.select("value", "source_file", "line").mapInArrow(_json_batches, _LINES)


def _json_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        values = pa.array([literal_to_json(line) for line in batch["line"].to_pylist()], pa.string())
        yield pa.RecordBatch.from_arrays(
            [values, batch["source_file"], batch["line"]], names=["value", "source_file", "line"]
        )


def literal_to_json(line: str) -> str | None:
    """The JSON of a dict written as JSON or as a Python literal; None for anything else. Nothing is evaluated."""
    if len(line) > LONGEST_LINE:
        return None
    try:
        try:
            row = json.loads(line)
        except ValueError:
            row = ast.literal_eval(line.strip())
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None
    # Half a surrogate pair, which a literal may contain, is not valid text.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
