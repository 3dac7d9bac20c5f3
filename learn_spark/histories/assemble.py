"""The histories stage: the log into one padded row a user."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pyspark.sql import Window
from pyspark.sql import functions as F

from learn_spark.errors import LearnSparkError
from learn_spark.histories.protocols import PROTOCOLS
from learn_spark.pipeline.stage import StageContext, StageResult
from learn_spark.settings.schema import Histories
from learn_spark.tables import delta
from learn_spark.tables.contracts import contract

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def usable_events(interactions: DataFrame, item_index: DataFrame, settings: Histories) -> DataFrame:
    """Events that may enter a history: before ``as_of``, of enough value, of an indexed item."""
    events = interactions
    if (as_of := settings.as_of_micros()) is not None:
        events = events.where(F.unix_micros("event_time") < as_of)
    if settings.min_value is not None:
        events = events.where(F.col("value") >= settings.min_value)
    return events.join(item_index, "item_id", "inner").select(
        "user_id", "item_index", F.unix_micros("event_time").alias("time"), "event_id"
    )


def assemble(events: DataFrame, settings: Histories) -> DataFrame:
    """One row a user, as schemas/user_histories.yaml says: the latest ``max_length`` events in the order
    (event_time, event_id), padded with 0.

    Users beyond the cap lose their oldest events before anything is collected, so that no row ever holds a heavy
    user's whole log.
    """
    cap = settings.max_length
    counts = events.groupBy("user_id").agg(F.count("*").alias("n_events"))
    counted = events.join(counts, "user_id", "inner")
    newest_first = Window.partitionBy("user_id").orderBy(F.col("time").desc(), F.col("event_id").desc())
    light = counted.where(F.col("n_events") <= cap)
    heavy = counted.where(F.col("n_events") > cap).withColumn("place", F.row_number().over(newest_first))
    kept = light.unionByName(heavy.where(F.col("place") <= cap).drop("place"))
    event = F.struct("time", "event_id", "item_index")
    rows = kept.groupBy("user_id").agg(
        F.sort_array(F.collect_list(event)).alias("events"), F.first("n_events").alias("n_events")
    )
    length = F.size("events")
    train_length, validation_length = PROTOCOLS[settings.protocol](length)
    padding = cap - length
    return rows.select(
        "user_id",
        F.concat(F.col("events.item_index"), F.array_repeat(F.lit(0), padding)).alias("item_index"),
        F.concat(F.col("events.time"), F.array_repeat(F.lit(0).cast("bigint"), padding)).alias("event_time"),
        length.alias("length"),
        train_length.alias("train_length"),
        validation_length.alias("validation_length"),
        "n_events",
    )


def run(context: StageContext) -> StageResult:
    """Rebuild user_histories from the pinned versions of its inputs."""
    settings = context.settings.histories
    events = usable_events(context.read("interactions"), context.read("item_index"), settings)
    rows_in = events.count()
    rows = assemble(events, settings)
    users = events.select("user_id").distinct().count()
    if users == 0:
        raise LearnSparkError(
            "histories: no event is left after histories.as_of and histories.min_value; there is nothing to learn from"
        )
    # Files of equal size in a fixed order of users: the unit that the feed shuffles and shards.
    files = max(1, math.ceil(users / settings.rows_per_file))
    hashed = F.xxhash64("user_id")
    placed = rows.repartition(files, "user_id").sortWithinPartitions(hashed, "user_id")
    delta.overwrite(placed, context.path("user_histories"), contract("user_histories"))
    written = delta.read(context.spark, context.path("user_histories"))
    totals = written.agg(
        F.count("*").alias("users"),
        F.sum("length").alias("kept"),
        F.sum("n_events").alias("events"),
        F.count_if(F.col("n_events") > F.col("length")).alias("capped"),
        F.count_if(F.col("length") > F.col("validation_length")).alias("tested"),
    ).first()
    assert totals is not None
    if totals["users"] != users or totals["events"] != rows_in:
        raise LearnSparkError(
            f"histories: {rows_in:,} events of {users:,} users came in, but {totals['events']:,} events of "
            f"{totals['users']:,} users were written"
        )
    return StageResult(
        rows_in=rows_in,
        rows_out=totals["users"],
        counts={"events_kept": totals["kept"], "users_capped": totals["capped"], "users_with_test": totals["tested"]},
        notes=(
            f"{totals['kept']:,} of {rows_in:,} events kept; {totals['capped']:,} users longer than "
            f"{settings.max_length}; {totals['tested']:,} users with a test target",
        ),
    )
