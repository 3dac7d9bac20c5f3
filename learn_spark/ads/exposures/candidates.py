"""Candidates beside converted events: items that were popular at that time, or co-visited with the converted item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from learn_spark.ads.exposures.landing import landed
from learn_spark.ads.inputs.numbering import write_numbered
from learn_spark.core.settings.ads import InteractionExposuresSettings
from learn_spark.core.storage.path import StoragePath

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


REACH = 10  # co-visited: so many events of one user before and after the other


@dataclass(frozen=True)
class Drawn:
    """``rows``: exposures (event_id, user_id, item_id, event_time, request_id, converted). Of the ``candidates`` that
    were drawn ``similar`` are co-visited. ``later`` of the unconverted rows are of an item that the user has an event
    of after the request, ``known`` of one that they have an event of before it; ``again`` of the converted rows are.
    """

    rows: DataFrame
    candidates: int
    similar: int
    bought_later: int
    bought_before: int
    bought_again: int


def with_candidates(
    events: DataFrame,
    converted: DataFrame,
    settings: InteractionExposuresSettings,
    scratch: StoragePath,
    *,
    small: bool,
) -> Drawn:
    """The ``converted`` events as exposures, each with ``settings.candidates`` draws from the past.

    The pool of an instant are the ``settings.pool`` last of all ``events`` (event_id, user_id, item_id, event_time)
    strictly before it. The converted events of a user at one instant are one request, an item once. Those whose item is
    not in the pool are left out: with them every item that is shown for the first time would have converted.

    A candidate is the item of an event of the pool, drawn by a hash of the converted event's id: hence by its
    popularity at the time, and none before its first event. With the chance ``settings.similar`` it is a co-visited
    item instead (``_co_visited``). An item that was drawn twice in a request, or converted in it, is dropped. Without
    ``settings.repeats``, so is every row of an item that the user has an earlier event of.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    pooled = events.select("event_time", "event_id", "item_id", "user_id")
    order = ["event_time", "event_id"]
    numbered, _ = write_numbered(pooled, order, scratch / "numbered", first=0, small=small)
    before = numbered.groupBy("event_time").agg(F.min("number").alias("_before"))  # events before each instant
    of_one = Window.partitionBy("item_id").orderBy("_before")
    earlier, recent = of_one.rangeBetween(Window.unboundedPreceding, -1), of_one.rangeBetween(-settings.pool, -1)
    of_item = numbered.join(before, "event_time").select(
        "event_id",
        "_before",
        F.max("number").over(earlier).alias("_previous"),  # the item's last event before the instant
        F.count("*").over(earlier).alias("_earlier"),  # how many it has
        F.count("*").over(recent).alias("_recent"),  # how many of them are of the pool
    )
    request = F.concat_ws("/", "user_id", F.unix_micros("event_time").cast("string")).alias("request_id")
    key = ("user_id", "item_id", "event_time")
    asked = converted.select("event_id", *key, request).join(of_item, "event_id")
    asked = asked.where(F.col("_previous") >= F.col("_before") - settings.pool)
    own = events.groupBy("user_id", "item_id").agg(
        F.min("event_time").alias("_first"), F.max("event_time").alias("_last")
    )
    known = F.coalesce(F.col("_first") < F.col("event_time"), F.lit(False))
    if not settings.repeats:
        asked = asked.join(own, ["user_id", "item_id"]).where(~known).drop("_first", "_last")
    asked = asked.groupBy(*key, "request_id", "_before", "_earlier", "_recent").agg(F.min("event_id").alias("event_id"))
    asked = landed(asked, scratch / "asked")
    drawn = asked.withColumn("_draw", F.explode(F.sequence(F.lit(1), F.lit(settings.candidates))))
    pool = F.least(F.col("_before"), F.lit(settings.pool))
    drawn = drawn.withColumn("number", F.col("_before") - 1 - F.floor(_uniform(settings.seed) * pool).cast("long"))
    popular = numbered.select("number", F.col("item_id").alias("_popular"))
    candidates = drawn.join(popular, "number").drop("number")
    if settings.similar:
        candidates = _co_visited(candidates, numbered, settings)
    else:
        candidates = candidates.withColumn("_similar", F.lit(None).cast("string"))
    candidates = candidates.withColumn("item_id", F.coalesce("_similar", "_popular"))
    candidates = landed(candidates, scratch / "drawn")
    named = candidates.withColumn("event_id", F.concat_ws("/", "event_id", F.lit("candidate"), "_draw"))
    once = named.groupBy(*key, "request_id").agg(F.min("event_id").alias("event_id"))
    others = once.join(asked.select("request_id", "item_id"), ["request_id", "item_id"], "left_anti")
    if not settings.repeats:
        others = others.join(own, ["user_id", "item_id"], "left").where(~known)
    columns = ("event_id", *key, "request_id")
    rows = asked.select(*columns, F.lit(True).alias("converted")).unionByName(
        others.select(*columns, F.lit(False).alias("converted"))
    )
    rows = landed(rows, scratch / "shown")
    later = ~F.col("converted") & F.coalesce(F.col("_last") > F.col("event_time"), F.lit(False))
    of_own = rows.join(own, ["user_id", "item_id"], "left").agg(
        F.count_if(later).alias("bought_later"),
        F.count_if(~F.col("converted") & known).alias("bought_before"),
        F.count_if(F.col("converted") & known).alias("bought_again"),
    )
    similar = candidates.where("_similar IS NOT NULL").count()
    (counts,) = of_own.collect()
    return Drawn(rows, asked.count() * settings.candidates, similar, **counts.asDict())


def _co_visited(drawn: DataFrame, numbered: DataFrame, settings: InteractionExposuresSettings) -> DataFrame:
    """``drawn`` (event_id, item_id, _draw, _before, _earlier, _recent) with ``_similar``, a co-visited item or null.

    With the chance ``settings.similar`` one of the item's events in the pool is drawn, then one of the REACH events
    before and after it of the same user. If that is not in the pool, or there is none, the item is null.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    places = numbered.select(
        "number",
        "item_id",
        "user_id",
        F.row_number().over(Window.partitionBy("item_id").orderBy("number")).alias("_at_item"),
        F.row_number().over(Window.partitionBy("user_id").orderBy("number")).alias("_at_user"),
    )
    drawn = drawn.withColumns(
        {
            "_is_similar": _uniform(settings.seed, "similar") < settings.similar,
            "_at_item": (F.col("_earlier") - F.floor(_uniform(settings.seed, "event") * F.col("_recent"))).cast("int"),
            "_step": F.floor(_uniform(settings.seed, "step") * 2 * REACH).cast("int"),
        }
    )
    first = places.select("item_id", "_at_item", F.col("user_id").alias("_visitor"), F.col("_at_user").alias("_place"))
    drawn = drawn.join(first, ["item_id", "_at_item"], "left")
    # Steps are -REACH to -1, and 1 to REACH.
    step = F.col("_step") - F.when(F.col("_step") < REACH, REACH).otherwise(REACH - 1)
    drawn = drawn.withColumn("_place", F.when(F.col("_is_similar"), F.col("_place") + step))
    second = places.select(
        F.col("user_id").alias("_visitor"),
        F.col("_at_user").alias("_place"),
        F.col("item_id").alias("_co_visited"),
        F.col("number").alias("_number"),
    )
    drawn = drawn.join(second, ["_visitor", "_place"], "left")
    in_pool = F.col("_number").between(F.col("_before") - settings.pool, F.col("_before") - 1)
    drawn = drawn.withColumn("_similar", F.when(in_pool & (F.col("_recent") > 0), F.col("_co_visited")))
    return drawn.drop("_is_similar", "_at_item", "_step", "_visitor", "_place", "_co_visited", "_number")


def _uniform(seed: int, *what: str) -> Column:
    """A number in [0, 1) by a hash of event_id, _draw, ``seed`` and ``what`` is drawn."""
    from pyspark.sql import functions as F

    hashed = F.xxhash64("event_id", "_draw", F.lit(seed).cast("bigint"), *map(F.lit, what))
    return F.shiftrightunsigned(hashed, 11) * F.lit(2.0**-53)
