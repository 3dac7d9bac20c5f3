"""Encoding and committing a chunk of texts; after a worker's death it is retried with smaller batches, then halved."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Observation
from pyspark.sql import functions as F

from learn_spark.core.quality.quarantine import quarantine
from learn_spark.core.stages.context import StageContext
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.observed import observed
from learn_spark.encoder.gpus import gpu_tasks
from learn_spark.encoder.identity import EncoderError
from learn_spark.encoder.worker import OUTPUT, WorkerSpec, encode_partition

if TYPE_CHECKING:
    from pyspark.resource import ResourceProfile
    from pyspark.sql import DataFrame

# Without the setting a killed run loses at most so many texts, or this part of the run's texts.
LEAST_CHUNK, MOST_CHUNKS = 512, 200
# If more texts than this kill a worker, the fault is in the machine or the settings, not in the texts.
MAX_KILLERS = 20
KILLS = "the worker died of it"
_DEATHS = (
    "python worker exited unexpectedly",
    "python worker failed to connect back",
    "executorlostfailure",
    "out of memory",
    "outofmemoryerror",
    "memoryerror",
    "slave lost",
    "worker lost",
    "connection reset",
    "broken pipe",
)


def number_of_chunks(total: int, chunk_rows: int | None) -> int:
    """The number of chunks, with a commit each, of ``total`` texts by the setting ``encoder.chunk_rows``."""
    rows = max(LEAST_CHUNK, math.ceil(total / MOST_CHUNKS)) if chunk_rows is None else chunk_rows
    return math.ceil(total / rows)


@dataclass
class Totals:
    """Counts of the texts encoded so far."""

    seen: int = 0
    refused: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    truncated: int = 0
    loads: int = 0
    retries: int = 0
    killers: int = 0
    seconds: float = 0.0
    devices: set[str] = field(default_factory=set)

    @property
    def rows(self) -> int:
        """Number of texts that have an embedding now."""
        return self.seen - self.refused

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second, without padding."""
        return self.tokens / self.seconds if self.seconds else 0.0


class ChunkEncoder:
    """Encodes chunks into text_embeddings, one commit each; tasks run under ``profile`` (gpus.py)."""

    def __init__(
        self,
        context: StageContext,
        key: str,
        spec: WorkerSpec,
        tasks: int,
        profile: ResourceProfile | None,
        *,
        few: bool = False,
    ) -> None:
        """``few``: a chunk's vectors fit into this process, which then commits them without Spark."""
        self._context, self._key, self._spec, self._tasks = context, key, spec, tasks
        self._profile, self._few = profile, few
        self.totals = Totals()

    def encode(self, rows: DataFrame) -> None:
        """Encode the rows (text_key, text). Unusable texts go to quarantine. Raises EncoderError where too many kill a
        worker.
        """
        try:
            self._commit(rows)
        except Exception as error:
            if not died(error):
                raise
            self.totals.retries += 1
            smaller = max(1, self._spec.settings.token_budget // 4)
            self._context.console.say(f"a worker died or ran out of memory; retrying with a token budget of {smaller}")
            settings = self._spec.settings.model_copy(update={"token_budget": smaller})
            self._spec = replace(self._spec, settings=settings)
            self._encode_halves(rows, 0)

    def _encode_halves(self, rows: DataFrame, depth: int) -> None:
        try:
            self._commit(rows)
            return
        except Exception as error:
            if not died(error):
                raise
        self.totals.retries += 1
        if rows.count() == 1:
            self._refuse_killer(rows)
            return
        for half in (0, 1):
            part = rows.where(F.shiftright(F.xxhash64("text_key", F.lit("halves")), depth).bitwiseAND(F.lit(1)) == half)
            if not part.isEmpty():
                self._encode_halves(part, depth + 1)

    def _refuse_killer(self, rows: DataFrame) -> None:
        self.totals.killers += 1
        if self.totals.killers > MAX_KILLERS:
            raise EncoderError(
                f"embed_items: more than {MAX_KILLERS} texts killed the worker that encoded them; give workers more "
                "memory, or fewer of them (encoder.tasks)"
            )
        self.totals.seen += 1
        self.totals.refused += 1
        self._quarantine(rows.withColumn("error", F.lit(KILLS)))

    def _encoded(self, rows: DataFrame) -> DataFrame:
        work = encode_partition(self._spec)
        if self._profile is None:
            return rows.repartition(self._tasks).mapInArrow(work, OUTPUT)
        # One task per GPU, not per core, because small partitions make small batches.
        settings = self._spec.settings
        tasks = settings.tasks or gpu_tasks(self._context.spark, settings.gpus) or self._tasks
        return rows.repartition(tasks).mapInArrow(work, OUTPUT, profile=self._profile)

    def _commit(self, rows: DataFrame) -> None:
        if self._few:
            self._commit_few(rows)
            return
        # Counts are observed during the write, because a later count would run the LLM again.
        observation = Observation()
        encoded = self._encoded(rows).observe(
            observation,
            F.count(F.lit(1)).alias("rows"),
            F.coalesce(F.sum("n_tokens"), F.lit(0)).alias("tokens"),
            F.coalesce(F.sum("padded_tokens"), F.lit(0)).alias("padded_tokens"),
            F.count_if("truncated").alias("truncated"),
            F.count("error").alias("refused"),
            F.coalesce(F.sum("loads"), F.lit(0)).alias("loads"),
            F.array_join(F.array_sort(F.collect_set("device")), ",").alias("devices"),
        )
        good = encoded.where(F.col("error").isNull())
        delta.append(
            good.select(F.lit(self._key).alias("encoder_key"), "text_key", "embedding", "n_tokens"),
            self._context.path("text_embeddings"),
            contract("text_embeddings"),
        )
        counts: dict[str, Any] | None = observed(observation, self._context.spark)
        if counts is None:
            raise EncoderError("embed_items: Spark reported no counts of the written rows; run the stage again")
        if counts["refused"]:
            self._quarantine_refused(rows)
        self.totals.seen += counts["rows"]
        self.totals.devices |= set(filter(None, counts["devices"].split(",")))
        for name in ("refused", "tokens", "padded_tokens", "truncated", "loads"):
            setattr(self.totals, name, getattr(self.totals, name) + counts[name])

    def _commit_few(self, rows: DataFrame) -> None:
        encoded = self._encoded(rows).toArrow()
        good = encoded.filter(pc.is_null(encoded["error"]))
        described = contract("text_embeddings")
        keyed = good.append_column("encoder_key", pa.array([self._key] * len(good), pa.string()))
        path = self._context.path("text_embeddings")
        delta.append_arrow(self._context.spark, keyed.select(described.names), path, described)
        refused = encoded.filter(pc.is_valid(encoded["error"])).select(["text_key", "error"])
        if len(refused):
            self._quarantine(self._context.spark.createDataFrame(refused).join(rows, "text_key"))
        self.totals.seen += len(encoded)
        self.totals.refused += len(refused)
        self.totals.devices |= set(encoded["device"].to_pylist())
        for name in ("tokens", "padded_tokens", "truncated", "loads"):
            column = encoded["n_tokens" if name == "tokens" else name]
            setattr(self.totals, name, getattr(self.totals, name) + int(pc.sum(column).as_py() or 0))

    def _quarantine_refused(self, rows: DataFrame) -> None:
        """Encode the rows without an embedding once more, to get their reasons."""
        embedded = delta.read(self._context.spark, self._context.path("text_embeddings"))
        embedded = embedded.where(F.col("encoder_key") == self._key).select("text_key")
        missing = rows.join(embedded, "text_key", "left_anti")
        refused = self._encoded(missing).where(F.col("error").isNotNull()).select("text_key", "error")
        self._quarantine(refused.join(rows, "text_key"))

    def _quarantine(self, rows: DataFrame) -> None:
        quarantined = rows.select(
            F.to_json(F.struct("text_key", "text")).alias("raw"),
            F.array("error").alias("reasons"),
            F.lit(None).cast("string").alias("source_file"),
            F.lit(None).cast("string").alias("parsed"),
        )
        path = self._context.path("quarantine")
        quarantine(quarantined, path, source_table="text_embeddings", run_id=self._context.run_id)


def died(error: BaseException) -> bool:
    """Whether a job failed because a worker died or ran out of memory, not by an error of the encoder."""
    text = str(error).lower()
    return "encodererror" not in text and any(sign in text for sign in _DEATHS)
