"""The embed_items stage: the frozen LLM encodes texts that have no embedding under its key."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.resource import ResourceProfile
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from learn_spark.core.stages.context import StageContext
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.small import small_plans
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.data.text.templates import template
from learn_spark.encoder.chunks import ChunkEncoder, Totals, number_of_chunks
from learn_spark.encoder.gpus import gpu_profile, require_gpu, threads_of_task
from learn_spark.encoder.identity import MODEL_FILES, EncoderError, EncoderIdentity, identify
from learn_spark.encoder.loading import prepare
from learn_spark.encoder.registered_encoders import register_encoder
from learn_spark.encoder.worker import WorkerSpec

# So many texts are encoded in one step, by fewer tasks than Spark has cores where they are fewer than these a task.
FEW_TEXTS, TEXTS_A_TASK = 2_000, 8


def texts_to_encode(item_text: DataFrame, template_version: str, embeddings: DataFrame, key: str) -> DataFrame:
    """Distinct (text_key, text) of a template version without an embedding under ``key``."""
    texts = item_text.where(F.col("template_version") == template_version).select("text_key", "text")
    embedded = embeddings.where(F.col("encoder_key") == key).select("text_key")
    return texts.dropDuplicates(["text_key"]).join(embedded, "text_key", "left_anti")


def run(context: StageContext) -> StageResult:
    """Encode in chunks of ``encoder.chunk_rows`` texts with one commit each, so that a killed job loses one chunk."""
    delta.create_if_missing(context.path("text_embeddings"), contract("text_embeddings"))
    embeddings = Snapshot.open(context.path("text_embeddings")).rows
    with small_plans(context.spark, max(embeddings, context.snapshot("item_text").rows)):
        return _run(context)


def _run(context: StageContext) -> StageResult:
    settings = context.settings.encoder
    profile = gpu_profile(context.spark, settings.gpus) if settings.gpus else None
    if profile is not None:
        # Before any action, because an action would wait for ever where no executor has a GPU.
        require_gpu(context.spark, profile)
    identity = identify(settings)
    path = context.path("text_embeddings")
    version = template(context.settings.text.template).key
    item_text = context.read("item_text")
    missing = texts_to_encode(item_text, version, delta.read(context.spark, path), identity.key)
    # Few texts travel as one table, so that Spark finds them once and not once more for the plan.
    texts = missing.toArrow() if context.snapshot("item_text").is_small else None
    total = missing.count() if texts is None else len(texts)
    totals = Totals()
    if total:
        register_encoder(context.workspace, identity)
        few = texts is not None and total <= FEW_TEXTS and number_of_chunks(total, settings.chunk_rows) == 1
        given = context.spark.createDataFrame(texts) if few and texts is not None else missing
        totals = _encode(context, identity, given, total, profile, few=few)
    all_texts = item_text.where(F.col("template_version") == version).select("text_key").distinct()
    embedded = delta.read(context.spark, path).where(F.col("encoder_key") == identity.key)
    embedded = embedded.select("text_key", F.lit(True).alias("embedded")).distinct()
    counted = all_texts.join(embedded, "text_key", "left").agg(F.count("*"), F.count("embedded")).first()
    assert counted is not None
    rows_in, covered = counted
    if covered + totals.refused != rows_in:
        raise EncoderError(
            f"embed_items: of {rows_in:,} texts {covered:,} have an embedding and {totals.refused:,} were refused; "
            f"{rows_in - covered - totals.refused:,} are unaccounted for"
        )
    padding = 1 - totals.tokens / totals.padded_tokens if totals.padded_tokens else 0.0
    notes = [
        f"{totals.rows:,} texts encoded ({totals.tokens:,} tokens, {totals.tokens_per_second:,.0f} tokens/s, "
        f"{padding:.1%} padding), {rows_in - totals.rows - totals.refused:,} were encoded before"
    ]
    if totals.truncated:
        notes.append(f"{totals.truncated:,} texts are longer than {settings.max_tokens} tokens and were truncated")
    if totals.devices - {"cpu"}:
        notes.append(f"on {', '.join(sorted(totals.devices))}")
    return StageResult(
        rows_in=rows_in,
        rows_out=covered,
        refused=totals.refused,
        counts={
            "encoded": totals.rows,
            "tokens": totals.tokens,
            "truncated": totals.truncated,
            "model_loads": totals.loads,
            "chunk_retries": totals.retries,
        },
        notes=tuple(notes),
    )


def _encode(
    context: StageContext,
    identity: EncoderIdentity,
    missing: DataFrame,
    total: int,
    profile: ResourceProfile | None,
    *,
    few: bool,
) -> Totals:
    settings = context.settings.encoder
    tasks = settings.tasks or context.spark.sparkContext.defaultParallelism
    if few and settings.tasks is None:
        # Each task loads the model.
        tasks = max(1, min(tasks, total // TEXTS_A_TASK))
    prepared = prepare(identity, context.folder("cache", "models"))
    folder = context.for_workers(prepared, f"encoder-{identity.revision}", MODEL_FILES)
    spec = WorkerSpec(folder, settings, threads=threads_of_task(context.spark, tasks, settings.gpus))
    encoder = ChunkEncoder(context, identity.key, spec, tasks, profile, few=few)
    start = time.monotonic()
    with context.console.bar("encoding", total, "texts") as bar, _chunks(context, missing, total, few=few) as chunks:
        for chunk in chunks:
            encoder.encode(chunk)
            encoder.totals.seconds = time.monotonic() - start
            bar.advance(encoder.totals.seen - bar.done, f"{encoder.totals.tokens_per_second:,.0f} tokens/s")
    return encoder.totals


@contextmanager
def _chunks(context: StageContext, missing: DataFrame, total: int, *, few: bool) -> Iterator[Iterator[DataFrame]]:
    """The missing texts in chunks of about ``encoder.chunk_rows``.

    The plan of many is written to files: a cached frame that reads text_embeddings would be recomputed after each
    append to it, and every chunk would scan all texts.
    """
    if few:
        yield iter([missing])
        return
    chunks = number_of_chunks(total, context.settings.encoder.chunk_rows)
    plans = context.workspace.place / "staging" / "to_encode"
    plans.remove()  # of a run that was killed
    plan = plans / context.run_id
    numbered = missing.withColumn("chunk", F.pmod(F.xxhash64("text_key"), F.lit(chunks)))
    numbered.repartition("chunk").write.partitionBy("chunk").mode("overwrite").parquet(plan.spark)
    reader = context.spark.read.schema("text_key string, text string")
    try:
        yield (reader.parquet(child.spark) for child in plan.children() if child.name.startswith("chunk="))
    finally:
        plan.remove()
