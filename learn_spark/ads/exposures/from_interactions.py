"""Exposures from interactions: each event with its outcome, or each converted event among candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from learn_spark.ads.exposures.candidates import with_candidates
from learn_spark.ads.exposures.period import in_period
from learn_spark.ads.exposures.result import ExposuresResult, write_exposures
from learn_spark.core.settings.ads import InteractionExposuresSettings
from learn_spark.core.stages.context import StageContext
from learn_spark.core.storage.path import StoragePath

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def make_exposures(
    context: StageContext, settings: InteractionExposuresSettings, scratch: StoragePath
) -> ExposuresResult:
    """Write an exposure for each event of interactions, at its time; a value of ``positive_value`` or more converts.

    An event without a value is not converted. With ``candidates`` the exposures are the converted events, those without
    a value too, and the candidates of each (``with_candidates``). Revenue and context are null; the event's type is no
    context, as it may depend on the outcome.
    """
    from pyspark.sql import functions as F

    events, read = context.read("interactions"), context.snapshot("interactions").rows
    outside = events.where(~in_period(settings)).count()
    if settings.event_types is not None:
        events = events.where(F.col("event_type").isin(settings.event_types))
    inside = events.where(in_period(settings))
    high = F.col("value") >= settings.positive_value
    if not settings.candidates:
        columns = {"request_id": F.lit(None).cast("string"), "converted": F.coalesce(high, F.lit(False))}
        written = write_exposures(context, _rows(inside.withColumns(columns)))
        return ExposuresResult(read, written, outside=outside, not_sampled=read - outside - written)
    small = context.snapshot("interactions").is_small
    converted = inside.where(F.coalesce(high, F.lit(True)))
    drawn = with_candidates(events, converted, settings, scratch, small=small)
    kept, shown = drawn.rows.where("converted").count(), drawn.rows.where("not converted").count()
    written, dropped = write_exposures(context, _rows(drawn.rows)), drawn.candidates - shown
    return ExposuresResult(
        read + drawn.candidates,
        written,
        duplicates=dropped,
        outside=outside,
        not_sampled=read - outside - kept,
        of_written={
            "converted": kept,
            "bought_later": drawn.bought_later,
            "bought_before": drawn.bought_before,
            "bought_again": drawn.bought_again,
        },
        notes=(
            f"{kept:,} converted events; {drawn.candidates:,} candidates were drawn, {drawn.similar:,} by co-visits, "
            f"the others by popularity; {dropped:,} of them were dropped: twice in a request, converted in it"
            f"{'' if settings.repeats else ', or of an item that the user has an earlier event of'}",
            f"of {shown:,} unconverted exposures {drawn.bought_before:,} are of an item that the user has an earlier "
            f"event of, and {drawn.bought_later:,} of one with a later event; {drawn.bought_again:,} of {kept:,} "
            "converted are of the former",
        ),
    )


def _rows(exposures: DataFrame) -> DataFrame:
    """The columns of the table."""
    from pyspark.sql import functions as F

    return exposures.select(
        "event_id",
        "user_id",
        "item_id",
        "event_time",
        F.lit(None).cast("string").alias("arm"),
        F.lit(None).cast("int").alias("position"),
        F.lit(None).cast("map<string,string>").alias("context"),
        "converted",
        F.lit(None).cast("double").alias("revenue"),
        F.lit(1.0).alias("weight"),
        "request_id",
    )
