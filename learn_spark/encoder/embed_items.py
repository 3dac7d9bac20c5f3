"""The embed_items stage: the frozen LLM over the texts that have no embedding under its key yet."""

from __future__ import annotations

import math
import os
import shutil
import time

from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from learn_spark.encoder.identity import EncoderError, EncoderIdentity, identify
from learn_spark.encoder.loading import prepare
from learn_spark.encoder.worker import OUTPUT, WorkerSpec, encode_partition
from learn_spark.pipeline.stage import StageContext, StageResult
from learn_spark.quality.quarantine import quarantine
from learn_spark.settings.schema import Settings
from learn_spark.tables import delta
from learn_spark.tables.contracts import contract
from learn_spark.tables.observed import observed
from learn_spark.tables.workspace import Workspace
from learn_spark.text.templates import template


def other_inputs(settings: Settings, workspace: Workspace) -> dict[str, str]:
    """The encoder, by its key."""
    return {f"encoder:{settings.encoder.model}": identify(settings.encoder).key}


def texts_to_encode(item_text: DataFrame, template_version: str, embeddings: DataFrame, key: str) -> DataFrame:
    """Distinct (text_key, text) of a template version without an embedding under ``key``."""
    wanted = item_text.where(F.col("template_version") == template_version).select("text_key", "text")
    there = embeddings.where(F.col("encoder_key") == key).select("text_key")
    return wanted.dropDuplicates(["text_key"]).join(there, "text_key", "left_anti")


def run(context: StageContext) -> StageResult:
    """Encode in chunks of ``encoder.chunk_rows`` texts, one commit each: a job that is killed loses one chunk."""
    settings = context.settings.encoder
    identity = identify(settings)
    path, table = context.path("text_embeddings"), contract("text_embeddings")
    delta.create_if_missing(context.spark, path, table)
    version = template(context.settings.text.template).key
    item_text = context.read("item_text")
    missing = texts_to_encode(item_text, version, delta.read(context.spark, path), identity.key)
    total = missing.count()
    totals = _encode_chunks(context, identity, missing, total) if total else _Totals()
    wanted = item_text.where(F.col("template_version") == version).select("text_key").distinct()
    have = delta.read(context.spark, path).where(F.col("encoder_key") == identity.key)
    rows_in, covered = wanted.count(), wanted.join(have, "text_key", "left_semi").count()
    if covered + totals.refused != rows_in:
        raise EncoderError(
            f"embed_items: of {rows_in:,} texts {covered:,} have an embedding and {totals.refused:,} were refused; "
            f"{rows_in - covered - totals.refused:,} are unaccounted for"
        )
    return StageResult(
        rows_in=rows_in,
        rows_out=covered,
        refused=totals.refused,
        counts={"encoded": totals.rows, "tokens": totals.tokens, "model_loads": totals.loads},
        notes=(
            f"{totals.rows:,} texts encoded ({totals.tokens:,} tokens, {totals.tokens_per_second:,.0f} tokens/s), "
            f"{rows_in - totals.rows - totals.refused:,} were there already",
        ),
    )


class _Totals:
    def __init__(self) -> None:
        self.seen = self.tokens = self.refused = self.loads = 0
        self.seconds = 0.0

    @property
    def rows(self) -> int:
        return self.seen - self.refused

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


def _encode_chunks(context: StageContext, identity: EncoderIdentity, missing: DataFrame, total: int) -> _Totals:
    settings = context.settings.encoder
    tasks = settings.tasks or context.spark.sparkContext.defaultParallelism
    spec = WorkerSpec(
        folder=str(prepare(identity, context.folder("cache", "models"))),
        max_tokens=settings.max_tokens,
        normalise=settings.normalise,
        token_budget=settings.token_budget,
        threads=max(1, (os.cpu_count() or 1) // tasks),
    )
    chunks = math.ceil(total / settings.chunk_rows)
    # The plan is written down: a cached frame that reads text_embeddings would be computed anew after each append
    # to it, and every chunk would scan all texts.
    plan = context.folder("cache", "to_encode", context.run_id)
    numbered = missing.withColumn("chunk", F.pmod(F.xxhash64("text_key"), F.lit(chunks)))
    numbered.repartition("chunk").write.partitionBy("chunk").mode("overwrite").parquet(f"file:{plan}")
    totals = _Totals()
    start = time.monotonic()
    try:
        with context.report.bar("encoding", total, "texts") as bar:
            for folder in sorted(plan.glob("chunk=*")):
                rows = context.spark.read.schema("text_key string, text string").parquet(f"file:{folder}")
                _encode_chunk(context, identity.key, spec, rows.repartition(tasks), totals)
                totals.seconds = time.monotonic() - start
                bar.advance(totals.seen - bar.done, f"{totals.tokens_per_second:,.0f} tokens/s")
    finally:
        shutil.rmtree(plan, ignore_errors=True)
    return totals


def _encode_chunk(context: StageContext, key: str, spec: WorkerSpec, rows: DataFrame, totals: _Totals) -> None:
    done = rows.mapInArrow(encode_partition(spec), OUTPUT)
    # The counts ride along with the write: asking for them afterwards would run the LLM again.
    counted = Observation()
    watched = done.observe(
        counted,
        F.count(F.lit(1)).alias("rows"),
        F.coalesce(F.sum("n_tokens"), F.lit(0)).alias("tokens"),
        F.count("error").alias("refused"),
        F.coalesce(F.sum("loads"), F.lit(0)).alias("loads"),
    )
    good = watched.where(F.col("error").isNull())
    delta.append(
        good.select(F.lit(key).alias("encoder_key"), "text_key", "embedding", "n_tokens"),
        context.path("text_embeddings"),
        contract("text_embeddings"),
    )
    found = observed(counted, context.spark)
    if found is None:
        raise EncoderError("embed_items: Spark reports no count of the rows it wrote")
    if found["refused"]:
        _quarantine(context, key, spec, rows)
    totals.seen += found["rows"]
    totals.refused += found["refused"]
    totals.tokens += found["tokens"]
    totals.loads += found["loads"]


def _quarantine(context: StageContext, key: str, spec: WorkerSpec, rows: DataFrame) -> None:
    """Encode once more, only the rows that got no embedding, for their reasons."""
    there = delta.read(context.spark, context.path("text_embeddings")).where(F.col("encoder_key") == key)
    lacking = rows.join(there.select("text_key"), "text_key", "left_anti")
    refused = lacking.mapInArrow(encode_partition(spec), OUTPUT).where(F.col("error").isNotNull())
    named = refused.join(rows, "text_key").select(
        F.to_json(F.struct("text_key", "text")).alias("raw"),
        F.array("error").alias("reasons"),
        F.lit(None).cast("string").alias("source_file"),
        F.lit(None).cast("string").alias("parsed"),
    )
    quarantine(named, context.path("quarantine"), source_table="text_embeddings", run_id=context.run_id)
