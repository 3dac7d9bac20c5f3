"""Coupons as exposures: the products of a campaign's coupons, to each household that received the campaign.

Complete Journey's campaigns; the package's rows are simulated.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from learn_spark.ads.exposures.journey import Journey, Sample, exposure_rows, shops_day
from learn_spark.ads.exposures.landing import landed
from learn_spark.ads.exposures.period import in_period
from learn_spark.ads.exposures.sampling import is_kept
from learn_spark.core.settings.ads import JourneyExposuresSettings
from learn_spark.core.storage.path import StoragePath
from learn_spark.data.sources.complete_journey import SHOPS_ZONE, micros

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_KEYS = ("campaign_id", "household_id", "product_id")


def coupon_sample(journey: Journey, settings: JourneyExposuresSettings, scratch: StoragePath) -> Sample:
    """Each household that received a campaign, with each product of its coupons: an exposure at the campaign's start.

    The start is 0:00 in the shop's zone. An exposure is converted if, on one of the first ``attribution_days`` days,
    the household redeemed one of the campaign's coupons for the product and bought the product; its revenue is what
    was paid for the product on those days. A campaign is left out if the purchases end before its ``attribution_days``
    do, as its conversions are not yet known. All converted exposures are kept, of the others a share of
    ``coupon_rate``.
    """
    from pyspark.sql import functions as F

    campaigns, notes = _campaigns(journey, settings)
    received = journey.table("campaigns").distinct().join(F.broadcast(campaigns), "campaign_id")
    received = landed(received, scratch / "received")
    offered = journey.table("coupons").select("campaign_id", "product_id").distinct()
    households = received.groupBy("campaign_id").agg(F.count("*").alias("households"))
    products = offered.groupBy("campaign_id").agg(F.count("*").alias("products"))
    counted = households.join(products, "campaign_id").agg(F.sum(F.col("households") * F.col("products"))).first()
    redeemed = landed(_redeemed(journey, received, settings.attribution_days), scratch / "redeemed")
    pairs = offered.join(F.broadcast(received), "campaign_id")
    sampled = pairs.where(is_kept(_event_id(), settings.coupon_rate, settings.seed))
    others = sampled.join(F.broadcast(redeemed.select(*_KEYS)), list(_KEYS), "left_anti")
    context = {"kind": F.lit("coupon"), **{name: F.col(name) for name in ("campaign_id", "campaign_type")}}
    rows = exposure_rows(redeemed, _event_id(), context, converted=True, weight=1.0).unionByName(
        exposure_rows(others, _event_id(), context, converted=False, weight=1 / settings.coupon_rate)
    )
    return Sample("coupon", rows, (counted and counted[0]) or 0, settings.coupon_rate, notes)


def _campaigns(journey: Journey, settings: JourneyExposuresSettings) -> tuple[DataFrame, tuple[str, ...]]:
    """(campaign_id, campaign_type, start (date), event_time of the campaigns of the period and types; notes)."""
    from pyspark.sql import functions as F

    described = journey.table("campaign_descriptions")
    start = F.to_date(F.timestamp_micros(micros(described, "start_date")))
    campaigns = (
        described.where(F.col("campaign_type").isin(settings.campaign_types))
        .select("campaign_id", "campaign_type", start.alias("start"))
        .withColumn("event_time", F.to_utc_timestamp(F.col("start").cast("timestamp"), SHOPS_ZONE))
        .where(in_period(settings))
    )
    newest = journey.lines.agg(F.max(shops_day("event_time"))).first()
    last = newest[0] if newest else None
    latest = None if last is None else last - timedelta(days=settings.attribution_days - 1)
    is_over = F.col("start") <= F.lit(latest)
    early = campaigns.where(~F.coalesce(is_over, F.lit(False))).count()
    left_out = f"{early:,} campaigns are left out: the purchases end on {last}, before {settings.attribution_days} days"
    return campaigns.where(is_over), (f"{left_out} of them had passed",) if early else ()


def _redeemed(journey: Journey, received: DataFrame, days: int) -> DataFrame:
    """The converted exposures: columns of ``received``, product_id, revenue.

    A redemption names a coupon, and a coupon is for many products: those that the household bought that day are
    converted.
    """
    from pyspark.sql import functions as F

    redemptions = journey.table("coupon_redemptions")
    day = F.to_date(F.timestamp_micros(micros(redemptions, "redemption_date")))
    dated = redemptions.select("household_id", "coupon_upc", "campaign_id", day.alias("day"))
    in_time = dated.join(received, ["campaign_id", "household_id"]).where(
        F.col("day").between(F.col("start"), F.date_add("start", days - 1))
    )
    coupons = journey.table("coupons").distinct()
    # Two coupons of one day may be for one product, which was paid once.
    each = F.broadcast(in_time).join(coupons, ["campaign_id", "coupon_upc"]).drop("coupon_upc").distinct()
    lines = journey.purchases.select("household_id", "product_id", shops_day("event_time").alias("day"), "sales_value")
    paid = lines.join(F.broadcast(each), ["household_id", "product_id", "day"])
    return paid.groupBy(*_KEYS, "campaign_type", "start", "event_time").agg(F.sum("sales_value").alias("revenue"))


def _event_id() -> Column:
    from pyspark.sql import functions as F

    return F.concat_ws("/", F.lit("coupon"), *_KEYS)
