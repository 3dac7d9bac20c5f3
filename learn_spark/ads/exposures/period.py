"""The period of the exposures, as a Spark condition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from learn_spark.core.settings.ads import PeriodSettings

if TYPE_CHECKING:
    from pyspark.sql import Column


def in_period(settings: PeriodSettings, time: str = "event_time") -> Column:
    """Whether ``since`` <= the column ``time`` (timestamp) < ``until``."""
    from pyspark.sql import functions as F

    inside = F.lit(True)
    if (since := settings.since_micros()) is not None:
        inside &= F.col(time) >= F.timestamp_micros(F.lit(since))
    if (until := settings.until_micros()) is not None:
        inside &= F.col(time) < F.timestamp_micros(F.lit(until))
    return inside
