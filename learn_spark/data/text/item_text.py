"""The item_text stage: one prompt per item, addressed by its content."""

from __future__ import annotations

from pyspark.sql import functions as F

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.stages.context import StageContext
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.small import small_plans
from learn_spark.data.text.cleaning import clean
from learn_spark.data.text.templates import template

SAMPLE_CHARACTERS = 300


def run(context: StageContext) -> StageResult:
    """Write the text of every item whose text is new or changed.

    Every item gets a text: an item without any gets ``text.fallback``, so that it still has a (neutral) embedding.
    """
    with small_plans(context.spark, context.snapshot("items").rows):
        return _run(context)


def _run(context: StageContext) -> StageResult:
    settings = context.settings.text
    chosen = template(settings.template)
    items = context.read("items")
    cleaned = {name: clean(F.col(name).cast("string"), settings.max_characters) for name in chosen.fields()}
    rendered = items.select("item_id", chosen.render(cleaned).alias("text"))
    texts = rendered.select(
        "item_id",
        F.lit(chosen.key).alias("template_version"),
        F.when(F.trim("text") == "", F.lit(settings.fallback))
        .otherwise(F.substring("text", 1, settings.max_characters))
        .alias("text"),
        (F.trim("text") == "").alias("blank"),
    ).withColumn("text_key", F.sha2("text", 256))
    texts = texts.persist()
    try:
        changes = delta.merge(
            texts.drop("blank"),
            context.path("item_text"),
            contract("item_text"),
            update_when="t.text_key != s.text_key",
            most=context.snapshot("items").rows,
        )
        counted = texts.agg(
            F.count("*").alias("items"),
            F.count_if("blank").alias("blank"),
            F.countDistinct("text_key").alias("texts"),
            F.min_by(F.substring("text", 1, SAMPLE_CHARACTERS), "item_id").alias("sample"),
        ).first()
    finally:
        texts.unpersist()
    assert counted is not None
    written = delta.read(context.spark, context.path("item_text")).where(F.col("template_version") == chosen.key)
    rows_in = context.snapshot("items").rows
    rows_out = written.join(items.select("item_id"), "item_id", "left_semi").count()
    if rows_in != rows_out:
        raise LearnSparkError(
            f"item_text: {rows_in:,} items were read, but {rows_out:,} of them have a text in the table"
        )
    return StageResult(
        rows_in=rows_in,
        rows_out=rows_out,
        counts={**changes, "blank": counted["blank"], "distinct_texts": counted["texts"]},
        notes=(
            f"{counted['texts']:,} distinct texts of {counted['items']:,} items, {counted['blank']:,} without text",
            *([f"template {chosen.name}, for example: {counted['sample']}"] if counted["items"] else []),
        ),
    )
