"""The items of a user's last events before each exposure, point in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from learn_spark.ads.inputs.counts import HOUR

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def recent_items(frame: DataFrame, interactions: DataFrame, most: int, lag_hours: float) -> DataFrame:
    """(user_id, time, release, item_id, place): the items of the last ``most`` events of the user of each exposure of
    ``frame`` (user_id, time in microseconds, release) that has a release; ``place`` numbers a user's events from 1 on.

    Events of ``interactions`` count with time < t - ``lag_hours``, of an exposure at time t: as running counts do. They
    may be later than the release. Exposures of one user at one time are looked up once.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    asked = frame.where("release >= 0").select("user_id", "time", "release").distinct()
    users = asked.select("user_id").distinct()
    events = interactions.select("user_id", "item_id", "event_id", F.unix_micros("event_time").alias("_at"))
    events = events.join(users, "user_id", "left_semi")
    order = Window.partitionBy("user_id").orderBy("_at", "event_id")
    events = events.withColumn("place", F.row_number().over(order))
    until = Window.partitionBy("user_id").orderBy("_at").rangeBetween(Window.unboundedPreceding, -1)
    times = asked.select("user_id", (F.col("time") - round(lag_hours * HOUR)).alias("_at"), F.lit(0).alias("_n"))
    known = events.select("user_id", "_at", F.lit(1).alias("_n")).unionByName(times.distinct())
    known = known.withColumn("_events", F.sum("_n").over(until)).where("_n = 0 AND _events > 0")
    known = known.select("user_id", (F.col("_at") + round(lag_hours * HOUR)).alias("time"), "_events")
    first = F.greatest(F.lit(1), F.col("_events") - most + 1)
    placed = asked.join(known, ["user_id", "time"]).withColumn("place", F.explode(F.sequence(first, "_events")))
    found = placed.join(events.select("user_id", "place", "item_id"), ["user_id", "place"])
    return found.select("user_id", "time", "release", "item_id", "place")
