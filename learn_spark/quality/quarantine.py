"""Quarantine: refused rows with their reasons, kept once however often they are delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from learn_spark.tables import delta
from learn_spark.tables.contracts import contract

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def quarantine(refused: DataFrame, path: str, *, source_table: str, run_id: str) -> None:
    """Keep the refused rows (columns ``raw`` and ``reasons``)."""
    from pyspark.sql import functions as F

    rows = (
        refused.withColumn("reasons", F.array_sort("reasons"))
        .groupBy("raw", "reasons")
        .agg(F.count("*").alias("occurrences"))
        .select(
            F.sha2(F.concat_ws("\x1f", F.lit(source_table), "raw", F.concat_ws("\x1e", "reasons")), 256).alias(
                "row_id"
            ),
            F.lit(source_table).alias("source_table"),
            "raw",
            "reasons",
            "occurrences",
            F.lit(run_id).alias("run_id"),
        )
    )
    delta.merge(rows, path, contract("quarantine"))
