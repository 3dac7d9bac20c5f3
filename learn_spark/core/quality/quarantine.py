"""Quarantine: refused rows with their reasons, once each, however often they are delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import contract

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def quarantine(refused: DataFrame, path: str, *, source_table: str, run_id: str, most: int | None = None) -> int:
    """Merge refused rows (columns ``raw``, ``reasons``, ``source_file``, ``parsed``); the number of new ones.

    The result does not depend on how deliveries are grouped into runs, except for ``run_id``. ``most``: the most rows
    that ``refused`` can have, for ``delta.merge``.
    """
    from pyspark.sql import functions as F

    table = contract("quarantine")
    delta.create_if_missing(path, table)
    of_a_file = refused.groupBy("raw", "reasons", "source_file").agg(
        F.count("*").alias("occurrences"), F.max("parsed").alias("parsed")
    )
    rows = (
        of_a_file.groupBy("raw", "reasons")
        .agg(
            F.max("occurrences").alias("occurrences"),
            F.min("source_file").alias("source_file"),
            F.max("parsed").alias("parsed"),
        )
        .select(
            row_id(source_table).alias("row_id"),
            F.lit(source_table).alias("source_table"),
            "raw",
            "reasons",
            "occurrences",
            "source_file",
            "parsed",
            F.lit(run_id).alias("run_id"),
        )
    )
    return keep(rows, path, most=most)


def keep(rows: DataFrame, path: str, *, most: int | None = None) -> int:
    """Merge rows of the quarantine's contract by ``row_id``; the number of new ones. ``most``: as ``delta.merge``."""
    from pyspark.sql import functions as F

    existing = delta.read(rows.sparkSession, path).select(
        "row_id",
        F.col("occurrences").alias("_occurrences"),
        F.col("source_file").alias("_file"),
        F.col("run_id").alias("_run"),
    )
    together = rows.join(existing, "row_id", "left").withColumns(
        {
            "occurrences": F.greatest("occurrences", "_occurrences"),
            "source_file": F.least("source_file", "_file"),
            "run_id": F.coalesce("_run", "run_id"),
        }
    )
    table = contract("quarantine")
    different = "t.occurrences != s.occurrences or not (t.source_file <=> s.source_file)"
    merged = delta.merge(together.select(*table.names), path, table, update_when=different, most=most)
    return merged["inserted"]


def row_id(source_table: str) -> Column:
    """The key of a refused row, from its columns ``raw`` and ``reasons``."""
    from pyspark.sql import functions as F

    return F.sha2(F.concat_ws("\x1f", F.lit(source_table), "raw", F.concat_ws("\x1e", "reasons")), 256)
