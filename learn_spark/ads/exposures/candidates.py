"""Candidates beside converted events: items that were as popular as they were drawn at that time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from learn_spark.ads.exposures.landing import landed
from learn_spark.ads.inputs.numbering import write_numbered
from learn_spark.core.settings.ads import InteractionExposuresSettings
from learn_spark.core.storage.path import StoragePath

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def with_candidates(
    events: DataFrame,
    converted: DataFrame,
    settings: InteractionExposuresSettings,
    scratch: StoragePath,
    *,
    small: bool,
) -> tuple[DataFrame, int, int]:
    """(exposures: event_id, user_id, item_id, event_time, request_id, converted; the number of candidates that were
    drawn; of those that were dropped).

    The ``converted`` events of a user at one instant are one request. For each of its events ``settings.candidates``
    events are drawn, with replacement and by a hash of its id, from the ``settings.pool`` last of all ``events``
    (event_id, item_id, event_time) strictly before the instant. Their items are the candidates, hence drawn by
    their popularity at the time; an item has none before its first event. Drawn twice in a request, or converted in
    it, an item is dropped. The first events of all have no candidates.
    """
    from pyspark.sql import functions as F

    request = F.concat_ws("/", "user_id", F.unix_micros("event_time").cast("string")).alias("request_id")
    asked = converted.select("event_id", "user_id", "item_id", "event_time", request)
    pooled = events.select("event_time", "event_id", "item_id")
    order = ["event_time", "event_id"]
    numbered, _ = write_numbered(pooled, order, scratch / "numbered", first=0, small=small)
    before = numbered.groupBy("event_time").agg(F.min("number").alias("_before"))  # events before each instant
    draws = F.explode(F.sequence(F.lit(1), F.lit(settings.candidates)))
    drawn = asked.join(before, "event_time").where("_before > 0").withColumn("_draw", draws)
    pool = F.least(F.col("_before"), F.lit(settings.pool))
    drawn = drawn.withColumn("number", F.col("_before") - 1 - F.floor(_uniform(settings.seed) * pool).cast("long"))
    items = numbered.select("number", F.col("item_id").alias("_item"))
    candidates = drawn.join(items, "number").select(
        F.concat_ws("/", "event_id", F.lit("candidate"), "_draw").alias("event_id"),
        "user_id",
        F.col("_item").alias("item_id"),
        "event_time",
        "request_id",
    )
    candidates = landed(candidates, scratch / "candidates")
    number = candidates.count()
    once = candidates.groupBy("user_id", "item_id", "event_time", "request_id").agg(F.min("event_id").alias("event_id"))
    others = once.join(asked.select("request_id", "item_id"), ["request_id", "item_id"], "left_anti")
    columns = ("event_id", "user_id", "item_id", "event_time", "request_id")
    rows = asked.select(*columns, F.lit(True).alias("converted")).unionByName(
        others.select(*columns, F.lit(False).alias("converted"))
    )
    rows = landed(rows, scratch / "shown")
    return rows, number, number - rows.where("not converted").count()


def _uniform(seed: int) -> Column:
    """A number in [0, 1) by a hash of event_id, _draw and ``seed``."""
    from pyspark.sql import functions as F

    hashed = F.xxhash64("event_id", "_draw", F.lit(seed).cast("bigint"))
    return F.shiftrightunsigned(hashed, 11) * F.lit(2.0**-53)
