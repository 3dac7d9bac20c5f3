"""How deep JSON is nested, before Spark reads it: its schema of some hundred levels ends the Java process."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column

DEEPEST = 32  # levels; rows of shops have three or four
_STRINGS = r'"(?:[^"\\\\]|\\\\.)*+"'  # as a literal of Spark's SQL, which halves backslashes
_LEVELS = rf"""
    aggregate(
        split(regexp_replace(regexp_replace({{text}}, '{_STRINGS}', ''), '[^\\[\\]{{{{}}}}]', ''), ''),
        struct(0 as now, 0 as most),
        (sum, sign) -> case
            when sign in ('[', '{{{{') then struct(sum.now + 1 as now, greatest(sum.most, sum.now + 1) as most)
            when sign in (']', '}}}}') then struct(sum.now - 1 as now, sum.most as most)
            else sum end,
        sum -> sum.most)"""


def within_depth(text: str) -> Column:
    """The column ``text``, null where its JSON is nested deeper than DEEPEST. Brackets in strings do not count."""
    from pyspark.sql import functions as F

    brackets = F.length(text) - F.length(F.translate(F.col(text), "[{", ""))
    # Few lines have so many brackets; the others are not taken apart.
    deep = F.when(brackets > DEEPEST, F.expr(_LEVELS.format(text=text)) > DEEPEST).otherwise(F.lit(False))
    return F.when(~F.coalesce(deep, F.lit(False)), F.col(text))
