"""Promotions as exposures: products on display or in the mailer of a store in a week, to each visit of that week.

Complete Journey's promotions; the package's rows are simulated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from learn_spark.ads.exposures.journey import Journey, Sample, exposure_rows
from learn_spark.ads.exposures.landing import landed
from learn_spark.ads.exposures.period import in_period
from learn_spark.ads.exposures.sampling import is_kept
from learn_spark.core.settings.ads import JourneyExposuresSettings
from learn_spark.core.storage.path import StoragePath

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

NOWHERE = "0"
CONTEXT = ("store_id", "week", "display_location", "mailer_location")


def promotion_sample(journey: Journey, settings: JourneyExposuresSettings, scratch: StoragePath) -> Sample:
    """Each visit of the period with each product promoted in its store and week is an exposure, at the visit's time.

    It is converted if the visit's basket has the product; its revenue is what was paid for it. All converted exposures
    are kept, of the others a share of ``promotion_rate``. Pairs are sampled as they are made and never shuffled;
    temporary files go to ``scratch``.
    """
    from pyspark.sql import functions as F

    visits = landed(journey.visits.where(in_period(settings)), scratch / "visits")
    promoted = _promoted(journey, visits, scratch)
    per_week = promoted.groupBy("store_id", "week").agg(F.count("*").alias("products"))
    visited = visits.groupBy("store_id", "week").agg(F.count("*").alias("visits"))
    counted = per_week.join(visited, ["store_id", "week"]).agg(F.sum(F.col("products") * F.col("visits"))).first()
    lines = journey.purchases.join(F.broadcast(visits.select("basket_id")), "basket_id", "left_semi")
    bought = lines.groupBy("basket_id", "product_id").agg(F.sum("sales_value").alias("revenue"))
    converted = bought.join(F.broadcast(visits), "basket_id").join(promoted, ["store_id", "week", "product_id"])
    pairs = promoted.join(F.broadcast(visits), ["store_id", "week"])
    sampled = pairs.where(is_kept(_event_id(), settings.promotion_rate, settings.seed))
    others = sampled.join(bought.select("basket_id", "product_id"), ["basket_id", "product_id"], "left_anti")
    context = {"kind": F.lit("promotion"), **{name: F.col(name) for name in CONTEXT}}
    rows = exposure_rows(converted, _event_id(), context, converted=True, weight=1.0).unionByName(
        exposure_rows(others, _event_id(), context, converted=False, weight=1 / settings.promotion_rate)
    )
    return Sample("promotion", rows, (counted and counted[0]) or 0, settings.promotion_rate)


def _promoted(journey: Journey, visits: DataFrame, scratch: StoragePath) -> DataFrame:
    """Each product once a store and week; a product with two rows has the places of both."""
    from pyspark.sql import functions as F

    shown = journey.table("promotions").join(
        F.broadcast(visits.select("store_id", "week").distinct()), ["store_id", "week"], "left_semi"
    )
    somewhere = [F.when(F.col(name) != NOWHERE, F.col(name)) for name in ("display_location", "mailer_location")]
    once = shown.groupBy("product_id", "store_id", "week").agg(
        F.min(somewhere[0]).alias("display_location"), F.min(somewhere[1]).alias("mailer_location")
    )
    kept = once.where("display_location is not null or mailer_location is not null").fillna(NOWHERE)
    return landed(kept, scratch / "promoted")


def _event_id() -> Column:
    from pyspark.sql import functions as F

    return F.concat_ws("/", "basket_id", "product_id")
