"""Events of an exposure's item and user before the as-of time of the release that it read, and cohorts by them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from learn_spark.ads.inputs.counts import KEYS
from learn_spark.core.settings.ads import CohortsSettings

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def with_events(frame: DataFrame, interactions: DataFrame, moments: np.ndarray, first: int) -> DataFrame:
    """``frame`` with ``item_events`` and ``user_events``, the numbers of events of the item, and of the user.

    Events count that are strictly before the as-of time of the exposure's ``release``, which is one of ``moments`` [R];
    without a release (-1), before ``first``. All are microseconds since 1970.
    """
    from pyspark.sql import functions as F

    every = [*moments.tolist(), first]  # the last is that of exposures without a release
    ascending = sorted(set(every))
    of_release = F.array(*[F.lit(ascending.index(moment)) for moment in every])
    at = F.when(F.col("release") < 0, len(moments)).otherwise(F.col("release"))
    frame = frame.withColumn("_moment", F.get(of_release, at))
    for kind, key in KEYS.items():
        events = events_before(interactions, frame.select(key, "_moment"), key, ascending)
        number = F.coalesce("_events", F.lit(0))
        frame = frame.join(events, [key, "_moment"], "left").withColumn(f"{kind}_events", number).drop("_events")
    return frame.drop("_moment")


def with_cohorts(test: DataFrame, settings: CohortsSettings) -> DataFrame:
    """``test`` with ``item_cohort`` and ``user_cohort``, places in COHORTS (ads/cohorts.py), by ``with_events``."""
    from pyspark.sql import functions as F

    for kind in KEYS:
        low, high = getattr(settings, kind)
        number = F.col(f"{kind}_events")
        cohort = F.when(number < low, 0).when(number < high, 1).otherwise(2).cast("tinyint")
        test = test.withColumn(f"{kind}_cohort", cohort)
    return test


def events_before(interactions: DataFrame, asked: DataFrame, key: str, moments: list[int]) -> DataFrame:
    """The distinct rows of ``asked`` (``key``, _moment) with ``_events``, the number of events of the key's entity
    strictly before ``moments``[_moment], which ascend.

    Events are counted by entity and moment before they are joined, so that an entity of many events is no heavy row.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    time = F.unix_micros("event_time")
    # Of the moments, how many an event is not before: the first that it counts for.
    first = _count_not_after(time, moments)
    events = interactions.where(time < F.lit(moments[-1])).select(key, first.alias("_moment"))
    counts = events.groupBy(key, "_moment").agg(F.count("*").alias("_n"))
    asked = asked.distinct()
    counts = counts.join(asked.select(key).distinct(), key, "left_semi")
    rows = counts.withColumn("_asked", F.lit(False)).unionByName(
        asked.withColumn("_n", F.lit(0).cast("long")).withColumn("_asked", F.lit(True))
    )
    until = Window.partitionBy(key).orderBy("_moment").rangeBetween(Window.unboundedPreceding, Window.currentRow)
    return rows.withColumn("_events", F.sum("_n").over(until)).where("_asked").select(key, "_moment", "_events")


def _count_not_after(time: Column, moments: list[int]) -> Column:
    """How many of the ascending ``moments`` are at or before ``time``: a binary search as one expression."""
    from pyspark.sql import functions as F

    def search(low: int, high: int) -> Column:
        if low == high:
            return F.lit(low)
        middle = (low + high) // 2
        return F.when(time < F.lit(moments[middle]), search(low, middle)).otherwise(search(middle + 1, high))

    return search(0, len(moments))
