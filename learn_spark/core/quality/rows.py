"""Row rules: the reasons for which a row is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from learn_spark.core.tables.contracts import RowRule

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def check_rows(frame: DataFrame, rules: Sequence[RowRule]) -> DataFrame:
    """The frame with ``reasons``: array<string> of all broken rules, in alphabetical order, empty for a good row."""
    from pyspark.sql import functions as F

    reasons = F.array(*[F.expr(f"if({rule.broken}, {_literal(rule.reason)}, null)") for rule in rules])
    return frame.withColumn("reasons", F.array_sort(F.array_compact(reasons)))


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
