"""Exposures from interactions: each event is one, converted where its value is high enough."""

from __future__ import annotations

from learn_spark.ads.exposures.gathered import Gathered, write_exposures
from learn_spark.ads.exposures.period import in_period
from learn_spark.core.stages.context import StageContext


def gather(context: StageContext) -> Gathered:
    """An event of interactions is an exposure at its time; a value from ``positive_value`` on stands for a conversion.

    An event without a value is not converted. What it earned nobody knows, and nothing is known of where it was shown:
    the event's type may itself tell what came of it.
    """
    from pyspark.sql import functions as F

    settings = context.settings.exposures
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
    return Gathered(context.snapshot("interactions").rows, written, outside=outside)
