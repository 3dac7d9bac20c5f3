"""What was known of an exposure's item and user before it: running counts of exposures and conversions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

KEYS = {"item": "item_id", "user": "user_id"}
RUNNING = tuple(f"{kind}_{what}" for kind in KEYS for what in ("shown", "converted"))
EVENTS = tuple(f"{kind}_events" for kind in KEYS)
COUNTS = (*RUNNING, *EVENTS)
HOUR = 3_600_000_000  # microseconds
FIXED_POINT = 1 << 16  # weights are summed as whole numbers of this part, so that the order of a sum changes nothing


def with_running_counts(frame: DataFrame, lag_hours: float | None) -> DataFrame:
    """``frame`` (item_id, user_id, time in microseconds, label, weight) with the columns RUNNING.

    An exposure at time t reads the exposures of its item, and of its user, with time < t - ``lag_hours``: the sums of
    their weights (shown), and of the weights of those that converted. Outcomes are taken to be known ``lag_hours``
    after an exposure. None: all counts are 0.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    if lag_hours is None:
        return frame.withColumns({name: F.lit(0.0) for name in RUNNING})
    weight = F.round(F.col("weight") * FIXED_POINT).cast("long")
    columns = {}
    for kind, key in KEYS.items():
        # The last microsecond that is strictly before t - lag.
        last = -round(lag_hours * HOUR) - 1
        before = Window.partitionBy(key).orderBy("time").rangeBetween(Window.unboundedPreceding, last)
        for what, value in (("shown", weight), ("converted", weight * F.col("label"))):
            columns[f"{kind}_{what}"] = F.coalesce(F.sum(value).over(before), F.lit(0)) / F.lit(float(FIXED_POINT))
    return frame.withColumns(columns)
