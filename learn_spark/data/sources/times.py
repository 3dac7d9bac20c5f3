"""Raw times: text or numbers as timestamps, and the setting that would fit where most of them are no times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from learn_spark.core.errors import SettingsError
from learn_spark.data.guesses.times import time_column
from learn_spark.data.sources.source import TimeUnit

if TYPE_CHECKING:
    from pyspark.sql import Column

_MICROS: dict[str, int] = {"s": 1_000_000, "ms": 1_000, "us": 1}
_UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds"}
# Years 1 to 9999: the range that Spark, Arrow and Python share.
_EARLIEST_MICROS, _LATEST_MICROS = -62_135_596_800_000_000, 253_402_300_799_999_999
# A date, and a time of day or none: a cast alone would read 10:30:00 as today, and 2024 as the first of January.
_ISO = r"^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([ T].*)?$"
EXAMPLE_CHARACTERS, EXAMPLES = 60, 8
SEPARATOR = "\x1f"  # of examples in one text, because the metrics of an observation are no arrays


def moment(column: str, unit: TimeUnit, formats: Sequence[str] = ()) -> Column:
    """A raw time as a timestamp (UTC); null where it is invalid or outside the years 1 to 9999.

    ISO 8601 text with a date is a time under every ``unit``, and so is a timestamp column. ``formats`` are Spark's
    patterns of text; they come first. A number is a time in ``unit``, and no time under ``iso``.
    """
    from pyspark.sql import functions as F

    text = F.col(column)
    times = [F.try_to_timestamp(text, F.lit(pattern)) for pattern in formats]
    times.append(F.when(text.rlike(_ISO), F.try_to_timestamp(text)))
    if unit != "iso":
        micros = text.try_cast("double") * _MICROS[unit]
        number = F.when(micros.between(_EARLIEST_MICROS, _LATEST_MICROS), F.timestamp_micros(micros.cast("bigint")))
        times.append(number)
    time = F.coalesce(*times)
    return F.when(F.unix_micros(time).between(_EARLIEST_MICROS, _LATEST_MICROS), time)


def time_metrics(column: str) -> list[Column]:
    """Aggregates over ``column`` and ``raw_<column>`` that ``clash`` reads: values, wrong ones, and some of them."""
    from pyspark.sql import functions as F

    time, raw = F.col(column), F.substring(f"raw_{column}", 1, EXAMPLE_CHARACTERS)
    plausible = time.between(F.lit("1990-01-01").cast("timestamp"), F.expr("current_timestamp() + interval 1 day"))
    wrong = raw.isNotNull() & ~F.coalesce(plausible, F.lit(False))
    # Of the wrong values the one with the smallest hash, by several hashes: a small sample without order.
    some = F.when(wrong, raw)
    sample = [F.min_by(some, F.when(wrong, F.xxhash64(some, F.lit(seed)))) for seed in range(EXAMPLES)]
    return [
        F.count(raw).alias(f"{column}_given"),
        F.count_if(wrong).alias(f"{column}_wrong"),
        F.concat_ws(SEPARATOR, F.array_sort(F.array_distinct(F.array(*sample)))).alias(f"{column}_examples"),
    ]


def clash(metrics: Mapping[str, Any], column: str, unit: str, *, where: str, settings: str) -> SettingsError | None:
    """The error where most values of ``column`` are no times under ``unit``, and times under another setting.

    A time before 1990 or in the future counts as none, because that is what seconds read as milliseconds look like.
    ``where`` names the column's place in the settings, and ``settings`` the section that has time_unit.
    """
    given, wrong = metrics[f"{column}_given"] or 0, metrics[f"{column}_wrong"] or 0
    if not wrong or wrong * 2 <= given:
        return None
    examples = metrics[f"{column}_examples"].split(SEPARATOR)
    times = [example for example in examples if time_column([example]) is not None]
    if len(times) * 2 <= len(examples) or (fitting := time_column(times)) is None:
        return None
    if fitting.form == "format":
        advice = f'{settings}.time_formats: ["{fitting.pattern}"]'
    elif fitting.form == "ns":
        advice = f"{where}: timestamp_micros(cast(THE COLUMN as bigint) div 1000), because they are nanoseconds"
    else:
        advice = f"{settings}.time_unit: {fitting.form}"
    if fitting.doubtful:
        advice += f" ({fitting.doubtful})"
    return SettingsError(
        f"{where}: {wrong:,} of {given:,} values are no times {_under(unit)}, for example {times[0]!r}; "
        f"this would fit them: {advice}"
    )


def _under(unit: str) -> str:
    return f"in {_UNIT_NAMES[unit]} (time_unit {unit})" if unit in _UNIT_NAMES else f"under time_unit {unit}"
