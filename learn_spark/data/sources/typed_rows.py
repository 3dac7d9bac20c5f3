"""Raw strings into typed columns: values that cannot be read become null, and the row rules judge them.

``raw_<column>`` keeps the text of a typed column for the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from learn_spark.data.sources.source import TimeUnit
from learn_spark.data.sources.times import moment

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# The fields of an event except its id, in the order in which two deliveries of one id are compared.
EVENT_ORDER = ("updated_at", "event_time", "user_id", "item_id", "event_type", "value")
_EVENT_JSON = (
    "event_id string, user_id string, item_id string, event_type string, value double, event_time bigint, "
    "updated_at bigint"
)
# White space, control characters and invisible ones (no-break space, tab, zero-width space, byte order mark).
_BLANK = r"[\s\p{Z}\p{Cc}\p{Cf}]+"
# Accents and sound marks that have a composed spelling with the letter before them.
_COMBINING = "[\u0300-\u0345\u3099\u309a]"
# A double or float from here on may be another whole number than the one that was written.
EXACT_BELOW, EXACT_FLOAT_BELOW = 2**53, 2**24
RAW_ITEM_COLUMNS, RAW_EVENT_COLUMNS = ("price", "updated_at"), ("value", "event_time", "updated_at")


def typed_items(raw: DataFrame, unit: TimeUnit, formats: Sequence[str] = ()) -> DataFrame:
    """The columns of items, ROW_COLUMNS, and ``raw_<column>`` of RAW_ITEM_COLUMNS."""
    from pyspark.sql import functions as F

    return raw.select(
        plain_id("item_id").alias("item_id"),
        *(F.col(name) for name in ("title", "category", "brand")),
        F.expr("try_cast(price as double)").alias("price"),
        *(F.col(name) for name in ("keywords", "attributes")),
        moment("updated_at", unit, formats).alias("updated_at"),
        *(F.col(name) for name in ("raw", "malformed", "source_file")),
        *(F.col(name).alias(f"raw_{name}") for name in RAW_ITEM_COLUMNS),
    )


def typed_events(raw: DataFrame, unit: TimeUnit, formats: Sequence[str] = ()) -> DataFrame:
    """The columns of interactions, ROW_COLUMNS, and ``raw_<column>`` of RAW_EVENT_COLUMNS."""
    from pyspark.sql import functions as F

    typed = raw.select(
        _stripped("event_id").alias("event_id"),
        plain_id("user_id").alias("user_id"),
        plain_id("item_id").alias("item_id"),
        "event_type",
        F.expr("try_cast(value as double)").alias("value"),
        moment("event_time", unit, formats).alias("event_time"),
        moment("updated_at", unit, formats).alias("updated_at"),
        *(F.col(name) for name in ("raw", "malformed", "source_file")),
        *(F.col(name).alias(f"raw_{name}") for name in RAW_EVENT_COLUMNS),
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
    """An id without blanks at its ends, and as a whole number where a float column or a spreadsheet wrote it.

    12.0 becomes 12, and Java's 1.2345678E7 becomes 12345678, both below 2^53. Above it the text stays as it is, for the
    rule of lost digits. NaN, which a float column has for a missing id, and a blank id are null.
    """
    from pyspark.sql import functions as F

    return plain_text(F.col(column))


def plain_text(column: Column) -> Column:
    """``plain_id`` of an expression."""
    from pyspark.sql import functions as F

    text = _stripped_text(column)
    number = text.try_cast("decimal(38,6)")
    whole = (number == F.floor(number)) & (F.abs(number) < EXACT_BELOW)
    written_by_floats = text.rlike(r"^-?[0-9]+[.]0+$|^-?[0-9][.][0-9]+E[0-9]{1,2}$")
    as_number = F.when(written_by_floats & whole, number.try_cast("bigint").cast("string"))
    return F.when(text != "NaN", F.coalesce(as_number, text))


def id_text(column: Column, kind: str) -> Column:
    """An id of Spark's type ``kind`` as text. A float beyond EXACT_FLOAT_BELOW has a plus sign, 1.6777216E+7, so that
    the rule of lost digits refuses it."""
    from pyspark.sql import functions as F

    text = column.cast("string")
    if kind != "float":
        return text
    return F.when(F.abs(column) >= EXACT_FLOAT_BELOW, F.regexp_replace(text, "E", "E+")).otherwise(text)


def spelling_metrics(column: str) -> list[Column]:
    """Aggregates over ids: how many have letters with combining accents (NFD), and one of them.

    The spelling with composed letters (NFC) is another id.
    """
    from pyspark.sql import functions as F

    decomposed = F.col(column).rlike(_COMBINING)
    return [
        F.count_if(decomposed).alias(f"{column}_decomposed"),
        F.min(F.when(decomposed, F.substring(column, 1, 60))).alias(f"{column}_spelled"),
    ]


def _stripped(column: str) -> Column:
    from pyspark.sql import functions as F

    return _stripped_text(F.col(column))


def _stripped_text(column: Column) -> Column:
    from pyspark.sql import functions as F

    text = F.regexp_replace(column, f"^{_BLANK}|{_BLANK}$", "")
    return F.when(text != "", text)
