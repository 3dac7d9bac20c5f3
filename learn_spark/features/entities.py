"""The users and items of a release, a fingerprint of the inputs of each vector, and which vectors to recompute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.stages.context import StageContext
from learn_spark.data.text.templates import template

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from learn_spark.model.store import Model


def active_users(histories: DataFrame, producer: str, window: int, *, needs_times: bool) -> DataFrame:
    """All active users: id, fingerprint, item_index, event_time, length, and seen (the items in the tower's window).

    The fingerprint is a hash of ``producer`` (model and code), the items of the last ``window`` events and, if the
    tower ``needs_times``, their times.
    """
    from pyspark.sql import functions as F

    kept = F.least("length", F.lit(window))
    start = F.col("length") - kept + 1
    seen = F.slice("item_index", start, kept)
    read = [seen, F.slice("event_time", start, kept)] if needs_times else [seen]
    return histories.where("chunk = 0").select(
        F.col("user_id").alias("id"),
        F.xxhash64(F.lit(producer), *read).alias("fingerprint"),
        "item_index",
        "event_time",
        "length",
        seen.alias("seen"),
    )


def catalogue_items(context: StageContext, model: Model, producer: str, *, reads_content: bool) -> DataFrame:
    """All items of the catalogue: id, fingerprint, item_index.

    The fingerprint is a hash of ``producer`` (model and code) and, for a tower that reads content, the item's text.
    Raises LearnSparkError if a tower over item IDs was trained on fewer items than the catalogue has.
    """
    from pyspark.sql import functions as F

    items = context.read("item_index").select(F.col("item_id").alias("id"), "item_index")
    text: Column = F.lit("")
    if reads_content:
        texts = context.read("item_text").where(
            F.col("template_version") == template(context.settings.text.template).key
        )
        items = items.join(texts.select(F.col("item_id").alias("id"), "text_key"), "id", "left")
        text = F.coalesce("text_key", F.lit(""))
    else:
        trained, largest = model.tower.n_items, items.agg(F.max("item_index")).first()
        if largest is not None and largest[0] > trained:
            raise LearnSparkError(
                f"publish: the model {model.model_id} was trained on the IDs of {trained:,} items, but the largest "
                f"item_index is {largest[0]:,}; train again (a tower over content does not need this)"
            )
    return items.select("id", F.xxhash64(F.lit(producer), text).alias("fingerprint"), "item_index")


def changed(entities: DataFrame, head: DataFrame | None, *, everything: bool) -> DataFrame:
    """The rows of ``entities`` that ``head`` (id, fingerprint) lacks or has with another fingerprint.

    All rows if ``everything`` or without ``head``.
    """
    if head is None or everything:
        return entities
    return entities.join(head.select("id", "fingerprint"), ["id", "fingerprint"], "left_anti")


def users_who_saw(users: DataFrame, items: DataFrame) -> DataFrame:
    """The distinct users with one of ``items`` (item_index) in the tower's window."""
    from pyspark.sql import functions as F

    windows = users.select("id", F.explode("seen").alias("item_index"))
    ids = windows.join(items.select("item_index"), "item_index", "left_semi").select("id").distinct()
    return users.join(ids, "id", "left_semi")
