"""Raw strings into typed columns: values that cannot be read become null, and the row rules judge them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from learn_spark.data.sources.source import TimeUnit

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# The fields of an event except its id, in the order in which two deliveries of one id are compared.
EVENT_ORDER = ("updated_at", "event_time", "user_id", "item_id", "event_type", "value")
_EVENT_JSON = (
    "event_id string, user_id string, item_id string, event_type string, value double, event_time bigint, "
    "updated_at bigint"
)
_MICROS: dict[TimeUnit, int] = {"s": 1_000_000, "ms": 1_000, "us": 1}
# Years 1 to 9999: the range that Spark, Arrow and Python share.
_EARLIEST_MICROS, _LATEST_MICROS = -62_135_596_800_000_000, 253_402_300_799_999_999


def typed_items(raw: DataFrame, unit: TimeUnit) -> DataFrame:
    """The columns of items, and raw, malformed, raw_price, raw_updated_at, source_file."""
    from pyspark.sql import functions as F

    return raw.select(
        plain_id("item_id").alias("item_id"),
        *(F.col(name) for name in ("title", "category", "brand")),
        F.expr("try_cast(price as double)").alias("price"),
        *(F.col(name) for name in ("keywords", "attributes")),
        moment("updated_at", unit).alias("updated_at"),
        *(F.col(name) for name in ("raw", "malformed", "source_file")),
        F.col("price").alias("raw_price"),
        F.col("updated_at").alias("raw_updated_at"),
    )


def typed_events(raw: DataFrame, unit: TimeUnit) -> DataFrame:
    """The columns of interactions, and raw, malformed, raw_value, raw_updated_at, source_file."""
    from pyspark.sql import functions as F

    typed = raw.select(
        "event_id",
        plain_id("user_id").alias("user_id"),
        plain_id("item_id").alias("item_id"),
        "event_type",
        F.expr("try_cast(value as double)").alias("value"),
        moment("event_time", unit).alias("event_time"),
        moment("updated_at", unit).alias("updated_at"),
        *(F.col(name) for name in ("raw", "malformed", "source_file")),
        F.col("value").alias("raw_value"),
        F.col("updated_at").alias("raw_updated_at"),
    )
    parts = [
        F.col("user_id"),
        F.col("item_id"),
        F.col("event_type"),
        F.coalesce(F.col("value").cast("string"), F.lit("")),
        F.unix_micros("event_time"),
    ]
    hashed = F.substring(F.sha2(F.concat_ws("\x1f", *parts), 256), 1, 32)
    return typed.withColumns({"event_id": F.coalesce("event_id", hashed), "event_date": F.to_date("event_time")})


def event_as_json() -> Column:
    """A typed event as JSON; ``event_from_json`` reads it."""
    from pyspark.sql import functions as F

    plain = [F.col(name) for name in ("event_id", "user_id", "item_id", "event_type", "value")]
    times = [F.unix_micros(name).alias(name) for name in ("event_time", "updated_at")]
    return F.to_json(F.struct(*plain, *times))


def event_from_json(column: str) -> Column:
    """The typed event, a struct with the columns of interactions."""
    from pyspark.sql import functions as F

    parsed = F.from_json(column, _EVENT_JSON)
    time = F.timestamp_micros(parsed["event_time"])
    plain = [parsed[name].alias(name) for name in ("event_id", "user_id", "item_id", "event_type", "value")]
    changed = F.timestamp_micros(parsed["updated_at"])
    return F.struct(*plain, time.alias("event_time"), F.to_date(time).alias("event_date"), changed.alias("updated_at"))


def plain_id(column: str) -> Column:
    """An id without a decimal zero: 12.0, as written by spreadsheets and float columns, becomes 12."""
    from pyspark.sql import functions as F

    return F.regexp_replace(column, r"^(\d+)\.0+$", "$1")


def moment(column: str, unit: TimeUnit) -> Column:
    """A raw time as a timestamp (UTC); null where it is invalid or outside the years 1 to 9999."""
    from pyspark.sql import functions as F

    if unit == "iso":
        return F.expr(f"try_to_timestamp({column})")
    micros = F.expr(f"try_cast({column} as double)") * _MICROS[unit]
    return F.when(micros.between(_EARLIEST_MICROS, _LATEST_MICROS), F.timestamp_micros(micros.cast("bigint")))
