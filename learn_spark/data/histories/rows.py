"""The plan of the padded rows: one shuffle of the events, and a bounded buffer for each user in turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pyspark.sql import Window
from pyspark.sql import functions as F
from pyspark.sql.internal import InternalFunction

from learn_spark.core.settings.histories import HistoriesSettings, TimeSplitHistoriesSettings
from learn_spark.core.tables.contracts import contract
from learn_spark.data.histories.protocols import (
    LEAVE_OUT,
    before_split_lengths,
    last_day_lengths,
    role_of_user,
    targets_at_the_end,
    time_split_lengths,
)

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

# Spark's own rule: an aggregate of rows that are sorted by its keys keeps one group in memory, and collects it once.
_SORTED_AGGREGATE = "spark.sql.execution.replaceHashWithSortAgg"


@contextmanager
def sorted_aggregates(spark: SparkSession) -> Iterator[None]:
    """Run the plans of ``padded_rows`` under this; without it Spark collects each user twice, with equal results."""
    before = spark.conf.get(_SORTED_AGGREGATE, None)
    spark.conf.set(_SORTED_AGGREGATE, "true")
    try:
        yield
    finally:
        if before is None:
            spark.conf.unset(_SORTED_AGGREGATE)
        else:
            spark.conf.set(_SORTED_AGGREGATE, before)


def padded_rows(events: DataFrame, settings: HistoriesSettings, partitions: int) -> DataFrame:
    """Rows of schemas/user_histories.yaml, of the events of ``indexed_events``.

    A user's events are together in one of the ``partitions``, sorted by a hash of the user, which compares faster than
    their id. Of the events of a row, no more than the row has room for are in memory.
    """
    weighted = "weight" in events.columns
    placed = events.withColumn("user_hash", F.xxhash64("user_id")).repartition(partitions, "user_id")
    placed = placed.sortWithinPartitions("user_hash", "user_id")
    if isinstance(settings, TimeSplitHistoriesSettings):
        return _padded(_split_at_a_time(placed, settings, weighted), settings, weighted)
    keys, n_events = ["user_hash", "user_id"], F.count(F.lit(1))
    if settings.long_users == "chunks":
        placed, n_events = _chunked(placed, settings), F.max("n_events")
        keys.append("chunk")
    kept = _most(_event(weighted), settings.max_length, greatest=True)
    rows = placed.groupBy(*keys).agg(kept.alias("events"), n_events.alias("n_events"))
    rows = rows.withColumn("events", F.reverse("events")).withColumn("length", F.size("events"))
    return _padded(rows, settings, weighted)


def _event(weighted: bool, *first: str) -> Column:
    return F.struct(*first, "time", "event_id", "item_index", *(("weight",) if weighted else ()))


def _most(event: Column, number: int, *, greatest: bool) -> Column:
    """Aggregate: the ``number`` greatest structs, in falling order, or the smallest, in rising order, without nulls.

    Spark keeps a priority queue of this many structs (its class CollectTopK, which ALS uses).
    """
    return InternalFunction.collect_top_k(event, number, not greatest)


def _chunked(placed: DataFrame, settings: HistoriesSettings) -> DataFrame:
    """The events with their chunk: chunk 0 has the newest ``max_length`` of them, others as many for training."""
    user = Window.partitionBy("user_hash", "user_id")
    place = F.row_number().over(user.orderBy(F.col("time").desc(), F.col("event_id").desc()))
    older = (F.col("place") - settings.max_length - 1) / (settings.max_length - targets_at_the_end(settings))
    chunk = F.when(F.col("place") <= settings.max_length, 0).otherwise(F.floor(older) + 1).cast("int")
    counted = placed.withColumn("place", place).withColumn("n_events", F.count(F.lit(1)).over(user))
    return counted.withColumn("chunk", chunk).sortWithinPartitions("user_hash", "user_id", "chunk")


def _split_at_a_time(placed: DataFrame, settings: TimeSplitHistoriesSettings, weighted: bool) -> DataFrame:
    """Each user's events before T, as many as there is room for, and the first from T on.

    A uniform sample has on both sides the events with the smallest random numbers, which are a hash of their id.
    """
    room, before = settings.max_length - settings.targets, F.col("time") < settings.split_micros()
    if settings.sample == "uniform":
        placed = placed.withColumn("draw", F.xxhash64("event_id", F.lit("stage 1")))
        drawn, names = _event(weighted, "draw"), ("time", "event_id", "item_index", *(("weight",) if weighted else ()))

        def sampled(side: Column, number: int) -> Column:
            most = _most(F.when(side, drawn), number, greatest=False)
            # The queue is sorted by the random numbers.
            return F.sort_array(F.transform(most, lambda one: F.struct(*[one[name].alias(name) for name in names])))

        history, targets = sampled(before, room), sampled(~before, settings.targets)
    else:
        event = _event(weighted)
        history = F.reverse(_most(F.when(before, event), room, greatest=True))
        targets = _most(F.when(~before, event), settings.targets, greatest=False)
    rows = placed.groupBy("user_hash", "user_id").agg(
        history.alias("before"), targets.alias("after"), F.count(F.lit(1)).alias("n_events")
    )
    rows = rows.withColumn("history", F.size("before")).withColumn("events", F.concat("before", "after"))
    return rows.withColumn("length", F.size("events"))


def _padded(rows: DataFrame, settings: HistoriesSettings, weighted: bool) -> DataFrame:
    """The contract's columns, of user_id, events, length, n_events, and of history or chunk where rows have one."""
    width, length, times = settings.max_length, F.col("length"), F.col("events.time")
    chunk = F.col("chunk") if "chunk" in rows.columns else F.lit(0)

    def padded(values: Column, kind: str) -> Column:
        return F.concat(values, F.array_repeat(F.lit(0).cast(kind), width - length))

    if isinstance(settings, TimeSplitHistoriesSettings):
        lengths_of = time_split_lengths if settings.train_after_split else before_split_lengths
        lengths = lengths_of(F.col("history"), length, role_of_user(settings))
    elif settings.protocol == "last_day":
        lengths = last_day_lengths(times, length)
    else:
        lengths = LEAVE_OUT[settings.protocol].lengths(length, chunk)
    ones = F.array_repeat(F.lit(1).cast("float"), length)
    columns = {
        "user_id": F.col("user_id"),
        "chunk": chunk,
        "item_index": padded(F.col("events.item_index"), "int"),
        "event_time": padded(times, "bigint"),
        "weight": padded(F.col("events.weight") if weighted else ones, "float"),
        "length": length,
        "train_end": lengths.train_end,
        "train_length": lengths.train,
        "validation_length": lengths.validation,
        "n_events": F.col("n_events"),
    }
    return rows.select(*[columns[name].alias(name) for name in contract("user_histories").names])
