"""What a table version looks like: every measure of its rules in one Spark pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from learn_spark.core.tables.contracts import Evenness, TableRule

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

ROWS_A_PARTITION = 150_000


def profile(
    frame: DataFrame, rules: Iterable[TableRule], read_table: Callable[[str], DataFrame]
) -> dict[str, float | None]:
    """Rule name -> value, for the rules that look at rows; null where there is nothing to measure.

    ``read_table`` gives the table that a reference speaks of. The rows are read once, all measures together, and once
    more (the columns alone) for each ``repeats_of`` and ``even``; a referenced table is read once beside them.
    """
    from pyspark.sql import functions as F

    rules = [rule for rule in rules if rule.measure or rule.references or rule.repeats_of or rule.even]
    if not rules:
        return {}
    plain = frame
    columns = [F.count(F.lit(1)).cast("double").alias("_rows")]
    for rule in rules:
        if rule.measure is not None:
            columns.append(F.expr(f"cast({rule.measure} as double)").alias(rule.name))
        elif rule.references is not None:
            column, known = rule.references.column, f"_{rule.name}"
            there = read_table(rule.references.table).select(column).distinct().withColumn(known, F.lit(True))
            frame = frame.join(there, column, "left")
            columns.append(F.count_if(F.col(known).isNull()).cast("double").alias(rule.name))
    row = frame.agg(*columns).first()
    assert row is not None
    found: dict[str, float | None] = row.asDict()
    rows = int(found.pop("_rows") or 0)
    for rule in rules:
        if rule.repeats_of is not None:
            found[rule.name] = float(_repeats(plain, rule.repeats_of, rows))
        elif rule.even is not None:
            found[rule.name] = float(_short(plain, rule.even))
    return found


def _repeats(frame: DataFrame, columns: list[str], rows: int) -> int:
    """Rows less distinct values. By 64-bit hashes, and by the values themselves only where hashes repeat."""
    from pyspark.sql import functions as F

    hashed = frame.select(F.xxhash64(*columns).alias("hash"))
    # Spread first, in portions that fit into the processor's caches: a partial aggregation saves nothing on keys.
    spread = hashed.repartition(max(1, rows // ROWS_A_PARTITION), "hash")
    repeats = rows - spread.distinct().count()
    return repeats and rows - frame.select(*columns).distinct().count()


def _short(frame: DataFrame, even: Evenness) -> int:
    """How many rows the values of ``even.among`` are short of the fullest one in their group, in all."""
    from pyspark.sql import functions as F

    counts = frame.groupBy(*even.within, even.among).count()
    groups = counts.groupBy(*even.within).agg((F.max("count") * F.count("*") - F.sum("count")).alias("short"))
    row = groups.agg(F.sum("short")).first()
    assert row is not None
    return int(row[0] or 0)
