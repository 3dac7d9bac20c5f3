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
) -> tuple[DataFrame, int]:
    """(exposures: event_id, user_id, item_id, event_time, request_id, converted; the number of candidates drawn).

    The pool of an instant are the ``settings.pool`` last of all ``events`` (event_id, item_id, event_time) strictly
    before it. The ``converted`` events of a user at one instant are one request, an item once. Those whose item is not
    in the pool are left out: with them every item that is shown for the first time would have converted. For each of
    the others ``settings.candidates`` events are drawn from the pool, with replacement and by a hash of its id. Their
    items are the candidates, hence drawn by their popularity at the time; none before its first event. An item that
    was drawn twice in a request, or converted in it, is dropped.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    pooled = events.select("event_time", "event_id", "item_id")
    order = ["event_time", "event_id"]
    numbered, _ = write_numbered(pooled, order, scratch / "numbered", first=0, small=small)
    micros = F.unix_micros("event_time")
    earlier = Window.partitionBy("item_id").orderBy(micros).rangeBetween(Window.unboundedPreceding, -1)
    previous = numbered.select("event_id", F.max("number").over(earlier).alias("_previous"))  # event of the item
    before = numbered.groupBy("event_time").agg(F.min("number").alias("_before"))  # events before each instant
    request = F.concat_ws("/", "user_id", micros.cast("string")).alias("request_id")
    key = ("user_id", "item_id", "event_time")
    asked = converted.select("event_id", *key, request).join(previous, "event_id").join(before, "event_time")
    asked = asked.where(F.col("_previous") >= F.col("_before") - settings.pool)
    asked = asked.groupBy(*key, "request_id", "_before").agg(F.min("event_id").alias("event_id"))
    asked = landed(asked, scratch / "asked")
    drawn = asked.withColumn("_draw", F.explode(F.sequence(F.lit(1), F.lit(settings.candidates))))
    pool = F.least(F.col("_before"), F.lit(settings.pool))
    drawn = drawn.withColumn("number", F.col("_before") - 1 - F.floor(_uniform(settings.seed) * pool).cast("long"))
    candidates = drawn.drop("item_id").join(numbered.select("number", "item_id"), "number")
    candidates = candidates.withColumn("event_id", F.concat_ws("/", "event_id", F.lit("candidate"), "_draw"))
    once = candidates.groupBy(*key, "request_id").agg(F.min("event_id").alias("event_id"))
    others = once.join(asked.select("request_id", "item_id"), ["request_id", "item_id"], "left_anti")
    columns = ("event_id", *key, "request_id")
    rows = asked.select(*columns, F.lit(True).alias("converted")).unionByName(
        others.select(*columns, F.lit(False).alias("converted"))
    )
    return landed(rows, scratch / "shown"), asked.count() * settings.candidates


def _uniform(seed: int) -> Column:
    """A number in [0, 1) by a hash of event_id, _draw and ``seed``."""
    from pyspark.sql import functions as F

    hashed = F.xxhash64("event_id", "_draw", F.lit(seed).cast("bigint"))
    return F.shiftrightunsigned(hashed, 11) * F.lit(2.0**-53)
