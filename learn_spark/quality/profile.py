"""What a table version looks like: every measure of its rules in one Spark pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from learn_spark.tables.contracts import TableRule

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def profile(
    frame: DataFrame, rules: Iterable[TableRule], read_table: Callable[[str], DataFrame]
) -> dict[str, float | None]:
    """Rule name -> value, for the rules with a ``measure`` or ``references``; null where there is nothing to measure.

    ``read_table`` gives the table that a reference speaks of. The rows are read once, all measures together; each
    referenced table is read once beside them.
    """
    from pyspark.sql import functions as F

    columns = []
    for rule in rules:
        if rule.measure is not None:
            columns.append(F.expr(f"cast({rule.measure} as double)").alias(rule.name))
        elif rule.references is not None:
            column, known = rule.references.column, f"_{rule.name}"
            there = read_table(rule.references.table).select(column).distinct().withColumn(known, F.lit(True))
            frame = frame.join(there, column, "left")
            columns.append(F.count_if(F.col(known).isNull()).cast("double").alias(rule.name))
    if not columns:
        return {}
    row = frame.agg(*columns).first()
    assert row is not None
    return row.asDict()
