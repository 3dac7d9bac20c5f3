"""Row rules: the reasons for which a row is refused, and the fields that are set to null."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from learn_spark.core.tables.contracts import RowRule

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def check_rows(frame: DataFrame, rules: Sequence[RowRule]) -> DataFrame:
    """The frame with ``reasons`` and ``flaws``, both array<string>, in alphabetical order.

    ``reasons`` has all broken rules that refuse a row, and is empty for a good row. ``flaws`` has the broken rules with
    ``nulls``, whose columns are null in the result.
    """
    from pyspark.sql import functions as F

    checked = {
        "reasons": _reasons([rule for rule in rules if rule.nulls is None]),
        "flaws": _reasons([rule for rule in rules if rule.nulls is not None]),
    }
    for name in sorted({rule.nulls for rule in rules if rule.nulls is not None}):
        broken = " or ".join(f"coalesce({rule.broken}, false)" for rule in rules if rule.nulls == name)
        checked[name] = F.when(~F.expr(broken), F.col(name))
    return frame.withColumns(checked)


def _reasons(rules: Sequence[RowRule]) -> Column:
    from pyspark.sql import functions as F

    if not rules:
        return F.expr("cast(array() as array<string>)")
    broken = F.array(*[F.expr(f"if({rule.broken}, {_literal(rule.reason)}, null)") for rule in rules])
    return F.array_sort(F.array_compact(broken))


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
