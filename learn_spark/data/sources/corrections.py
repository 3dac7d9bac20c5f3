"""Events that look like corrections of other events, which the settings give no key or no order for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from learn_spark.core.settings.source import FilesSourceSettings, SourceSettings
from learn_spark.core.tables import delta

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_SAME = ("user_id", "item_id", "event_type", "event_time")


def correction_notes(
    spark: SparkSession, settings: SourceSettings, path: str, delivered: DataFrame, *, added: int, repeated: int
) -> tuple[tuple[str, ...], int]:
    """(warnings, number of events that look like corrections) of the events of a run, after they were merged.

    ``delivered`` are the run's accepted rows, of which ``added`` changed the log at ``path`` and ``repeated`` did not.
    Nothing is read where the settings leave no doubt: they map event_id and updated_at, or the format is a known one.
    """
    if not isinstance(settings, FilesSourceSettings):
        return (), 0
    mapped = settings.events.columns
    if "event_id" not in mapped:
        return _several_values(delta.read(spark, path), delivered) if added else ((), 0)
    if "updated_at" not in mapped and repeated:
        return _lost(delta.read(spark, path), delivered)
    return (), 0


def _several_values(log: DataFrame, delivered: DataFrame) -> tuple[tuple[str, ...], int]:
    """Without event_id an event is identified by its content, so that a corrected value makes it another event."""
    from pyspark.sql import functions as F

    keys = delivered.select(*_SAME).distinct()
    several = (
        log.join(keys, list(_SAME), "left_semi")
        .groupBy(*_SAME)
        .agg(F.count("*").alias("events"), F.min("value").alias("least"), F.max("value").alias("most"))
        .where("events > 1")
    )
    first = F.struct("user_id", "item_id", F.col("event_time").cast("string").alias("at"), "least", "most")
    return _warning(
        several.agg(F.count("*"), F.min(first)),
        "warning: {:,} times a user has several events of one item, type and time that differ in value, such as user "
        "{user_id}, item {item_id} at {at} with {least} and {most}; each counts. If they are corrections, map event_id "
        "(what identifies an order line) and updated_at (when it changed) in source.events.columns",
    )


def _lost(log: DataFrame, delivered: DataFrame) -> tuple[tuple[str, ...], int]:
    """With event_id and without updated_at the greatest content is kept, and not the newest."""
    from pyspark.sql import functions as F

    fields = (*_SAME, "value")
    new = F.struct(*[F.col(f"n.{name}") for name in fields])
    kept = F.struct(*[F.col(f"o.{name}") for name in fields])
    differ = delivered.alias("n").join(log.alias("o"), "event_id").where(~new.eqNullSafe(kept))
    first = F.struct("event_id", F.col("n.value").alias("new"), F.col("o.value").alias("kept"))
    return _warning(
        differ.agg(F.count_distinct("event_id"), F.min(first)),
        "warning: {:,} events were delivered with several contents, such as event_id {event_id} with value {new}, of "
        "which {kept} was kept: without a time of change the later event_time, then the greater value. Map updated_at "
        "in source.events.columns, so that the newest one is",
    )


def _warning(counted: DataFrame, text: str) -> tuple[tuple[str, ...], int]:
    """(the warning ``text`` with the one row of ``counted``: a number and an example; the number)."""
    number, example = counted.collect()[0]
    return ((text.format(number, **example.asDict()),) if number else ()), number
