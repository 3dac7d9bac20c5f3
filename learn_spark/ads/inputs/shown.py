"""The exposures that rankers read: the rows that were shown, with their fields as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from learn_spark.ads.inputs.counts import with_running_counts
from learn_spark.core.errors import LearnSparkError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

COLUMN_FIELDS = ("user_id", "item_id", "position")


@dataclass(frozen=True)
class Shown:
    """``frame``: event_id, user_id, item_id, event_time, time (microseconds since 1970), label, weight, request_id,
    each of ``fields`` as text in ``column(field)``, and running counts (RUNNING). ``rows`` are shown, ``others`` not;
    ``first`` and ``last`` are times.
    """

    frame: DataFrame
    fields: Sequence[str]
    rows: int
    others: int
    first: int
    last: int

    def column(self, field: str) -> str:
        """The name of a field's column: keys of a context may have any character."""
        return f"field_{self.fields.index(field)}"


def shown_exposures(
    exposures: DataFrame, table: str, context: Sequence[str], since: int | None = None, lag_hours: float | None = None
) -> Shown:
    """The exposures at or after ``since`` (microseconds since 1970) of the ``exposures``; ``table`` is their name.

    A row of weight 0 was not shown and is no exposure. Running counts are of all exposures, also of those from before
    ``since``, by ``with_running_counts`` with ``lag_hours``. Raises LearnSparkError if there is no exposure, or if no
    exposure has one of the ``context`` keys.
    """
    from pyspark.sql import functions as F

    fields = (*COLUMN_FIELDS, *context)
    values = [F.col(name).cast("string") for name in COLUMN_FIELDS]
    values += [F.element_at("context", F.lit(key)) for key in context]
    rows = exposures.select(
        *("event_id", "user_id", "item_id", "event_time", "context"),
        F.unix_micros("event_time").alias("time"),
        F.col("converted").cast("int").alias("label"),
        "weight",
        # A table that an earlier version wrote has no requests.
        (F.col("request_id") if "request_id" in exposures.columns else F.lit(None).cast("string")).alias("request_id"),
        *(value.alias(f"field_{number}") for number, value in enumerate(values)),
    )
    kept = F.col("weight") > 0
    if since is not None:
        kept &= F.col("time") >= F.lit(since)
    counted = rows.agg(
        F.count_if(kept).alias("rows"),
        F.count("*").alias("all"),
        F.min(F.when(kept, F.col("time"))).alias("first"),
        F.max(F.when(kept, F.col("time"))).alias("last"),
        *(F.count_if(kept & F.col(f"field_{n}").isNotNull()).alias(f"n{n}") for n in range(len(fields))),
    ).collect()[0]
    others = counted["all"] - counted["rows"]
    if not counted["rows"]:
        raise LearnSparkError(
            f"rank_ads: none of {others:,} rows of {table} is an exposure (weight above 0)"
            + ("" if since is None else " at or after the start (ranking.since, or where the test began)")
        )
    shown = with_running_counts(rows.where("weight > 0"), lag_hours).where(kept)
    if missing := [key for key in context if not counted[f"n{fields.index(key)}"]]:
        keys = sorted(row[0] for row in shown.select(F.explode(F.map_keys("context"))).distinct().collect())
        raise LearnSparkError(
            f"rank_ads: no exposure has the context {', '.join(missing)} that ranking.context names; there are "
            f"{', '.join(keys) or 'none'}"
        )
    return Shown(shown.drop("context"), fields, counted["rows"], others, counted["first"], counted["last"])
