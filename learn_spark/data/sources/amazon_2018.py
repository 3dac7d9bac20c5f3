"""Amazon reviews up to 2018 by category: meta_<category>.json, and <category>.json or <category>_5.json.

Source: Ni, Li and McAuley 2019 (research use). All files may be gzip. Some fields have pieces of the web page that they
were scraped from; those become null, and everything else is passed on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from learn_spark.core.storage.path import StoragePath
from learn_spark.data.sources.amazon_2014 import find_any, one_per_category, review_events
from learn_spark.data.sources.location import LocationError
from learn_spark.data.sources.source import ITEM_COLUMNS, RawFile, TimeUnit, of_kind
from learn_spark.data.sources.text_lines import read_json_lines, shape

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

_AMOUNT = r"\$?\s*((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)"
_PRICE = rf"^\s*{_AMOUNT}(?:\s*-\s*{_AMOUNT})?\s*$"
_SCRIPT = r"(?i)getTime\(\)|aPageStart|<script|<style"
_TAG = r"</?[a-zA-Z]|<!"
# A shorter text that starts with a tag is a title in bold or similar.
_LONGEST_TITLE_WITH_TAGS = 100
_LONGEST_PRICE = 60


class Amazon2018:
    """Products and reviews. Of the full reviews of a category and their 5-core, one must be chosen."""

    time_unit: TimeUnit = "s"

    def files(self, folder: StoragePath) -> list[RawFile]:
        """The files of all categories. Raises LocationError where products or reviews are missing or present twice."""
        items = find_any(folder, ("meta_*.json", "meta_*.json.gz"), "items")
        names = {file.name for file in items}
        events = [file for file in find_any(folder, ("*.json", "*.json.gz"), "events") if file.name not in names]
        if not events:
            raise LocationError(f"source.path: {folder} has products but no reviews (<category>.json)")
        one_per_category(folder, items)
        one_per_category(folder, events)
        return [*items, *events]

    def items(self, spark: SparkSession, folder: StoragePath, files: Sequence[RawFile]) -> DataFrame:
        """Products: the category path joined by `` > ``, the description as attributes."""
        from pyspark.sql import functions as F

        fields = {name: f"$.{name}" for name in ("asin", "title", "price", "brand")}
        fields |= {name: f"$.{name} as array<string>" for name in ("category", "description")}
        return shape(
            read_json_lines(spark, folder, of_kind(files, "items"), fields),
            ITEM_COLUMNS,
            {
                "item_id": F.col("f_asin"),
                "title": _title(F.col("f_title")),
                "category": F.array_join(F.filter("f_category", lambda entry: ~entry.rlike(_TAG)), " > "),
                "brand": F.regexp_replace(F.btrim("f_brand", F.lit(" \t\r\n")), r"^by(?:\s+|$)", ""),
                "price": _price(F.col("f_price")),
                "attributes": F.array_join(F.filter("f_description", lambda part: F.trim(part) != ""), " "),
            },
        )

    def events(self, spark: SparkSession, folder: StoragePath, files: Sequence[RawFile]) -> DataFrame:
        """Reviews with the stars as value. Times are whole days."""
        fields = {name: f"$.{name}" for name in ("reviewerID", "asin", "overall", "unixReviewTime")}
        return review_events(read_json_lines(spark, folder, of_kind(files, "events"), fields))


def _title(title: Column) -> Column:
    """The title; null where it is a script or a piece of HTML."""
    from pyspark.sql import functions as F

    markup = F.ltrim(title).rlike(rf"^\s*(?:{_TAG})") & (F.length(title) > _LONGEST_TITLE_WITH_TAGS)
    return F.when(~title.rlike(_SCRIPT) & ~markup, title)


def _price(price: Column) -> Column:
    """The amount without dollar sign and thousands separators, the lower of a range; null where it is no price."""
    from pyspark.sql import functions as F

    price = F.when(F.length(price) <= _LONGEST_PRICE, price)
    first, second = (F.replace(F.regexp_extract(price, _PRICE, n), F.lit(",")) for n in (1, 2))
    lower = F.when((second != "") & (second.cast("double") < first.cast("double")), second).otherwise(first)
    return F.when(price.rlike(_PRICE), lower)
