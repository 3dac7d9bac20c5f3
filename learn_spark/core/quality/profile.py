"""The profile of a table version: all measures of its rules, in one Spark pass where possible."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from learn_spark.core.tables.contracts import Evenness, TableRule

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

ROWS_A_PARTITION = 150_000
MANY_PARTITIONS, HASHES_A_PARTITION = 1_000, 32 << 20  # bytes


def profile(
    frame: DataFrame,
    rules: Iterable[TableRule],
    read_table: Callable[[str], DataFrame],
    *,
    rows: int | None = None,
) -> dict[str, float | None]:
    """Rule name -> value, for the rules that measure rows; None if there is nothing to measure.

    ``read_table`` returns a referenced table. The rows are read once for all measures, and once more (only the columns
    of the rule) for each ``even`` and ``repeats_of``; a referenced table is read once. ``rows`` is the number of rows
    if the table's log has it: ``repeats_of`` takes no pass of its own for at most ROWS_A_PARTITION.
    """
    from pyspark.sql import functions as F

    rules = [rule for rule in rules if rule.measure or rule.references or rule.repeats_of or rule.even]
    if not rules:
        return {}
    plain, few = frame, rows is not None and rows <= ROWS_A_PARTITION
    columns = [F.count(F.lit(1)).cast("double").alias("_rows")]
    for rule in rules:
        if rule.measure is not None:
            columns.append(F.expr(f"cast({rule.measure} as double)").alias(rule.name))
        elif rule.references is not None:
            column, exists = rule.references.column, f"_{rule.name}"
            referenced = read_table(rule.references.table).select(column).distinct().withColumn(exists, F.lit(True))
            frame = frame.join(referenced, column, "left")
            columns.append(F.count_if(F.col(exists).isNull()).cast("double").alias(rule.name))
        elif rule.repeats_of is not None and few:
            # The set of one task's hashes fits into memory, and saves the small table two jobs.
            hashes = F.collect_set(F.xxhash64(*rule.repeats_of))
            columns.append((F.count(F.lit(1)) - F.size(hashes)).cast("double").alias(rule.name))
    row = frame.agg(*columns).first()
    assert row is not None
    values: dict[str, float | None] = row.asDict()
    counted = int(values.pop("_rows") or 0)
    for rule in rules:
        if rule.repeats_of is not None:
            repeats = int(values[rule.name] or 0) if few else _repeated_hashes(plain, rule.repeats_of, counted)
            # Different values may share a hash.
            exact = counted - plain.select(*rule.repeats_of).distinct().count() if repeats else 0
            values[rule.name] = float(exact)
        elif rule.even is not None:
            values[rule.name] = float(_short(plain, rule.even))
    return values


def hash_partitions(rows: int) -> int:
    """Number of partitions for ``rows`` hashes: ROWS_A_PARTITION each up to MANY_PARTITIONS, then by bytes, so that ten
    billion rows are some thousand tasks.
    """
    return max(1, min(rows // ROWS_A_PARTITION, MANY_PARTITIONS), rows * 8 // HASHES_A_PARTITION)


def _repeated_hashes(frame: DataFrame, columns: list[str], rows: int) -> int:
    """Number of rows minus number of distinct 64-bit hashes of their values."""
    from pyspark.sql import functions as F

    hashed = frame.select(F.xxhash64(*columns).alias("hash"))
    # Repartitioned first, into parts that fit into the processor's caches: partial aggregation does not reduce keys.
    spread = hashed.repartition(hash_partitions(rows), "hash")
    return rows - spread.distinct().count()


def _short(frame: DataFrame, even: Evenness) -> int:
    """Total number of rows that values of ``even.among`` lack against the most frequent one of their group."""
    from pyspark.sql import functions as F

    counts = frame.groupBy(*even.within, even.among).count()
    groups = counts.groupBy(*even.within).agg((F.max("count") * F.count("*") - F.sum("count")).alias("short"))
    row = groups.agg(F.sum("short")).first()
    assert row is not None
    return int(row[0] or 0)
