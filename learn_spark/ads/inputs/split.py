"""The split of exposures by time into train, validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.ads import RankingSettings
from learn_spark.core.times import as_micros

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

PARTS = ("train", "validation", "test")
BINS = 1 << 16  # of a histogram of times, which the driver receives


@dataclass(frozen=True)
class Split:
    """Exposures before ``validation_from`` train, those before ``test_from`` validate, the rest is the test; both are
    microseconds since 1970.
    """

    validation_from: int
    test_from: int

    def conditions(self) -> dict[str, Column]:
        """train, validation and test: a condition on the column ``time`` each."""
        from pyspark.sql import functions as F

        train, test = F.col("time") < F.lit(self.validation_from), F.col("time") >= F.lit(self.test_from)
        return {"train": train, "validation": ~train & ~test, "test": test}


def split_by_time(frame: DataFrame, rows: int, first: int, last: int, settings: RankingSettings) -> Split:
    """The split of ``rows`` exposures, whose ``time`` is from ``first`` to ``last``: at the settings' two times, or
    else by their shares of the rows. Exposures of one instant are on one side, the later.
    """
    if settings.validation_from is not None and settings.test_from is not None:
        return Split(as_micros(settings.validation_from), as_micros(settings.test_from))
    shares = (settings.train_share, settings.train_share + settings.validation_share)
    positions = [min(round(rows * share), rows - 1) for share in shares]
    if rows <= BINS:
        times = np.sort(np.asarray(frame.select("time").toArrow()["time"]))
        return Split(*times[positions].tolist())
    return Split(*times_at(frame, positions, first, last))


def sizes_of(frame: DataFrame, rows: int, split: Split) -> dict[str, int]:
    """Number of exposures in each part. Raises LearnSparkError if a part is empty."""
    from pyspark.sql import functions as F

    counts = frame.agg(*(F.count_if(condition).alias(name) for name, condition in split.conditions().items()))
    sizes = {name: int(counts.collect()[0][name]) for name in PARTS}
    if not all(sizes.values()):
        parts = ", ".join(f"{size:,} for {name}" for name, size in sizes.items())
        raise LearnSparkError(
            f"rank_ads: {rows:,} exposures cannot be split by time: {parts}. Those of one instant stay together; "
            "change ranking.train_share and validation_share, or validation_from and test_from"
        )
    return sizes


def times_at(frame: DataFrame, positions: Sequence[int], first: int, last: int, bins: int = BINS) -> list[int]:
    """The values of ``time`` at ``positions`` (from 0) in ascending order, exactly.

    Histograms of ``bins`` bins are refined until a bin is one microsecond: the range of years takes four passes.
    """
    from pyspark.sql import functions as F

    start = [first for _ in positions]
    span = [last - first + 1 for _ in positions]
    below = list(positions)  # rows of the range that are before the one sought
    while max(span) > 1:
        width = [-(-each // bins) for each in span]
        ranges = F.array(
            *(
                F.when(
                    (F.col("time") >= F.lit(s)) & (F.col("time") < F.lit(s + n)),
                    F.struct(F.lit(k).alias("range"), F.expr(f"(time - {s}L) div {w}L").alias("bin")),
                )
                for k, (s, n, w) in enumerate(zip(start, span, width, strict=True))
            )
        )
        placed = frame.select(F.explode(F.array_compact(ranges)).alias("at")).groupBy("at.range", "at.bin").count()
        histograms = np.zeros((len(start), bins), dtype=np.int64)
        for row in placed.collect():
            histograms[row["range"], row["bin"]] = row["count"]
        for k, histogram in enumerate(histograms):
            total = np.cumsum(histogram)
            found = int(np.searchsorted(total, below[k], side="right"))
            below[k] -= int(total[found] - histogram[found])
            start[k] += found * width[k]
            span[k] = width[k]
    return start
