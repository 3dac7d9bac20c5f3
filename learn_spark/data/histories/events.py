"""The events that enter a history, and their weights."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from learn_spark.core.settings.histories import HistoriesSettings, TimeSplitHistoriesSettings
from learn_spark.data.histories.protocols import TRAINING, core, role_of_user

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def usable_events(interactions: DataFrame, settings: HistoriesSettings) -> DataFrame:
    """Interactions before ``as_of``, of ``event_types``, of at least ``min_value``, in the protocol's core.

    With ``train_after_split: false``, those of training users from the split on are not among them.
    """
    events = interactions
    if (as_of := settings.as_of_micros()) is not None:
        events = events.where(F.unix_micros("event_time") < as_of)
    if settings.event_types is not None:
        events = events.where(F.col("event_type").isin(settings.event_types))
    if settings.min_value is not None:
        events = events.where(F.col("value") >= settings.min_value)
    if minimum := core(settings):
        events = _core(events, minimum)
    if isinstance(settings, TimeSplitHistoriesSettings) and not settings.train_after_split:
        before = F.unix_micros("event_time") < settings.split_micros()
        events = events.where(before | (role_of_user(settings) != TRAINING))
    return events


def indexed_events(events: DataFrame, item_index: DataFrame, settings: HistoriesSettings) -> DataFrame:
    """user_id, item_index, time (microseconds) and event_id of interactions, and weight where weights are set."""
    columns = [F.col("user_id"), F.col("item_index"), F.unix_micros("event_time").alias("time"), F.col("event_id")]
    if settings.weights:
        weights = F.create_map(*[F.lit(x) for x in chain.from_iterable(settings.weights.items())])
        weight = F.coalesce(F.try_element_at(weights, F.col("event_type")), F.lit(1.0))
        columns.append(weight.cast("float").alias("weight"))
    return events.join(item_index, "item_id", "inner").select(*columns)


def _core(events: DataFrame, minimum: int) -> DataFrame:
    """Events of items and users with at least ``minimum`` events in the log, then of users with that many left.

    Events are counted once, as in both Books protocols (Meta research/data/preprocessor.py, HLLM process_books.py); an
    iterated core would be smaller.
    """
    core_events = events.join(_frequent(events, "item_id", minimum), "item_id", "left_semi")
    core_events = core_events.join(_frequent(events, "user_id", minimum), "user_id", "left_semi")
    return core_events.join(_frequent(core_events, "user_id", minimum), "user_id", "left_semi")


def _frequent(events: DataFrame, name: str, minimum: int) -> DataFrame:
    return events.groupBy(name).agg(F.count("*").alias("n")).where(F.col("n") >= minimum).select(name)
