"""Row rules: pure Columns that say what is wrong with a row. A row keeps every reason that applies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


@dataclass(frozen=True)
class RowRule:
    """A row is refused with ``reason`` where ``broken`` is true (null counts as not broken)."""

    reason: str
    broken: Column


def judge(frame: DataFrame, rules: list[RowRule]) -> DataFrame:
    """The frame with a column ``reasons`` (array<string>, empty for a good row)."""
    from pyspark.sql import functions as F

    found = F.array(*[F.when(F.coalesce(rule.broken, F.lit(False)), F.lit(rule.reason)) for rule in rules])
    return frame.withColumn("reasons", F.filter(found, lambda reason: reason.isNotNull()))
