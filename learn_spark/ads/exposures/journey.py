"""The inputs of Complete Journey's exposures: visits, purchases, and the shop's days."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from learn_spark.core.storage.path import StoragePath
from learn_spark.data.sources.complete_journey import SHOPS_ZONE, micros, read_columns
from learn_spark.data.sources.source import RawFile, find_files

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

_COLUMNS: Mapping[str, Sequence[str]] = {
    "transactions": (
        "basket_id",
        "household_id",
        "store_id",
        "week",
        "product_id",
        "quantity",
        "sales_value",
        "transaction_timestamp",
    ),
    "promotions": ("product_id", "store_id", "week", "display_location", "mailer_location"),
    "campaigns": ("campaign_id", "household_id"),
    "campaign_descriptions": ("campaign_id", "campaign_type", "start_date"),
    "coupons": ("coupon_upc", "product_id", "campaign_id"),
    "coupon_redemptions": ("household_id", "coupon_upc", "campaign_id", "redemption_date"),
}


@dataclass(frozen=True)
class Sample:
    """Exposures of one kind: ``rows`` (the columns of exposures) were drawn from ``population``, the unconverted ones
    at ``rate``. ``notes`` are for the run's summary.
    """

    kind: str
    rows: DataFrame
    population: int
    rate: float
    notes: tuple[str, ...] = ()


def journey_files(folder: StoragePath) -> list[RawFile]:
    """The files that exposures are made from. Raises LocationError if one is missing."""
    return [file for name in _COLUMNS for file in find_files(folder, f"{name}.parquet", ["events"])]


@dataclass(frozen=True)
class Journey:
    """The package's files in ``folder``."""

    spark: SparkSession
    folder: StoragePath

    def table(self, name: str) -> DataFrame:
        """The needed columns of ``<name>.parquet``. Raises UnreadableFileError if one is missing."""
        (file,) = find_files(self.folder, f"{name}.parquet", ["events"])
        return read_columns(self.spark, file, _COLUMNS[name])

    @cached_property
    def lines(self) -> DataFrame:
        """The lines of all baskets, with ``event_time`` (timestamp, microseconds)."""
        from pyspark.sql import functions as F

        transactions = self.table("transactions")
        time = F.timestamp_micros(micros(transactions, "transaction_timestamp"))
        return transactions.withColumn("event_time", time).drop("transaction_timestamp")

    @property
    def visits(self) -> DataFrame:
        """Each basket once: basket_id, household_id, store_id, week, event_time."""
        from pyspark.sql import functions as F

        keys = ("basket_id", "household_id", "store_id", "week")
        return self.lines.groupBy(*keys).agg(F.min("event_time").alias("event_time"))

    @property
    def purchases(self) -> DataFrame:
        """The lines with a quantity above 0."""
        return self.lines.where("quantity > 0")


def exposure_rows(
    frame: DataFrame, event_id: Column, context: Mapping[str, Column], *, converted: bool, weight: float
) -> DataFrame:
    """The columns of exposures from household_id, product_id, event_time and, where ``converted``, revenue."""
    from pyspark.sql import functions as F

    entries = [part for key, value in context.items() for part in (F.lit(key), value.cast("string"))]
    return frame.select(
        event_id.alias("event_id"),
        F.col("household_id").cast("string").alias("user_id"),
        F.col("product_id").cast("string").alias("item_id"),
        "event_time",
        F.lit(None).cast("string").alias("arm"),
        F.lit(None).cast("int").alias("position"),
        F.create_map(*entries).alias("context"),
        F.lit(converted).alias("converted"),
        (F.col("revenue") if converted else F.lit(None).cast("double")).alias("revenue"),
        F.lit(weight).alias("weight"),
        F.regexp_extract(event_id, "^(.*)/[^/]*$", 1).alias("request_id"),  # the event's id without the product
    )


def shops_day(time: str) -> Column:
    """The date in the shop's zone of the column ``time`` (timestamp)."""
    from pyspark.sql import functions as F

    return F.to_date(F.from_utc_timestamp(F.col(time), SHOPS_ZONE))
