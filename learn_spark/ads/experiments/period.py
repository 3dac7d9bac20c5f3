"""The period of an experiment, and the pre-period before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.experiment import ExperimentSettings
from learn_spark.core.times import DAY, as_micros, from_micros

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


@dataclass(frozen=True)
class Period:
    """Microseconds since 1970: the experiment is [start, end), the pre-period [before, start); None: no bound."""

    before: int | None
    start: int
    end: int | None

    @property
    def texts(self) -> dict[str, str]:
        """The three times as text, by name."""
        return {
            name: "open" if at is None else f"{from_micros(at):%Y-%m-%d %H:%M:%S} UTC"
            for name, at in vars(self).items()
        }

    def place(self) -> Column:
        """The strings during, before or outside, by the column ``event_time``."""
        from pyspark.sql import functions as F

        micros = F.unix_micros("event_time")
        during = micros >= self.start
        if self.end is not None:
            during &= micros < self.end
        before = micros < self.start
        if self.before is not None:
            before &= micros >= self.before
        return F.when(during, "during").when(before, "before").otherwise("outside")


def period_of(rows: DataFrame, settings: ExperimentSettings) -> Period:
    """The times of the settings; without ``start``, the experiment starts at the first row that has an arm.

    Raises LearnSparkError if there is neither ``start`` nor a row with an arm.
    """
    from pyspark.sql import functions as F

    if settings.start is not None:
        start = as_micros(settings.start)
    else:
        earliest = rows.agg(F.min(F.when(F.col("arm").isNotNull(), F.unix_micros("event_time")))).first()
        assert earliest is not None
        if earliest[0] is None:
            raise LearnSparkError(
                "ab-report: no row of the logs has an arm, so the start of the experiment is unknown; set start, and "
                "either logs.columns.arm or assignment (for A/A, aa_splits, start is enough)"
            )
        start = int(earliest[0])
    before = None if settings.pre_days is None else start - round(settings.pre_days * DAY)
    return Period(before, start, None if settings.end is None else as_micros(settings.end))
