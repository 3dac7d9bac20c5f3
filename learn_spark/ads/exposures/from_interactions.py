"""Exposures from interactions: each event is an exposure, converted if its value is high enough."""

from __future__ import annotations

from learn_spark.ads.exposures.period import in_period
from learn_spark.ads.exposures.result import ExposuresResult, write_exposures
from learn_spark.core.settings.ads import InteractionExposuresSettings
from learn_spark.core.stages.context import StageContext


def make_exposures(context: StageContext, settings: InteractionExposuresSettings) -> ExposuresResult:
    """Write an exposure for each event of interactions, at its time; a value of ``positive_value`` or more converts.

    An event without a value is not converted. Revenue and context are null; the event's type is no context, as it may
    depend on the outcome.
    """
    from pyspark.sql import functions as F

    events = context.read("interactions")
    rows = events.where(in_period(settings)).select(
        "event_id",
        "user_id",
        "item_id",
        "event_time",
        F.lit(None).cast("string").alias("arm"),
        F.lit(None).cast("int").alias("position"),
        F.lit(None).cast("map<string,string>").alias("context"),
        F.coalesce(F.col("value") >= settings.positive_value, F.lit(False)).alias("converted"),
        F.lit(None).cast("double").alias("revenue"),
        F.lit(1.0).alias("weight"),
    )
    written = write_exposures(context, rows)
    outside = events.where(~in_period(settings)).count()
    return ExposuresResult(context.snapshot("interactions").rows, written, outside=outside)
