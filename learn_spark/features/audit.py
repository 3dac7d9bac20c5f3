"""The audit of a staged release: one Spark pass measures each table as it will be, and rules check the measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from learn_spark.core.quality.gate import Rule
from learn_spark.core.settings.features import ReleaseSettings

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

Profile = dict[str, float | None]


def table_profile(name: str, key: str, after: DataFrame, wanted: DataFrame, before: DataFrame | None = None) -> Profile:
    """Measures of one feature table as it will be: ``after`` (``key``, embedding) against ``wanted`` (id, and cold:
    whether it has no event) and ``before``, the vectors of the previous release in the same space; called ``name``_...

    rows, ids, repeated; missing and cold_missing: wanted without a vector; unknown: not wanted; min and max dim and
    norm, not_finite. With ``before``: cosine (mean over entities in both), new_share of ids, vanished_share of those
    before; without, null.
    """
    from pyspark.sql import functions as F

    computed = after.select(F.col(key).alias("id"), F.col("embedding").alias("now"), F.lit(True).alias("in_after"))
    expected = wanted.select("id", "cold", F.lit(True).alias("in_wanted"))
    joined = computed.join(expected, "id", "full_outer")
    if before is None:
        joined = joined.withColumns({"then": F.lit(None).cast("array<float>"), "in_before": F.lit(None)})
    else:
        old = before.select(F.col(key).alias("id"), F.col("embedding").alias("then"), F.lit(True).alias("in_before"))
        joined = joined.join(old, "id", "full_outer")
    norm = F.sqrt(_dot("now", "now"))
    cosine = _dot("now", "then") / (norm * F.sqrt(_dot("then", "then")))
    measured = joined.withColumns({"norm": norm, "cosine": cosine, "dim": F.size("now")})
    finite = ~F.isnan("norm") & (F.col("norm") != float("inf"))
    is_there, is_wanted = F.col("in_after").isNotNull(), F.col("in_wanted").isNotNull()
    was_there = F.col("in_before").isNotNull()
    row = measured.agg(
        F.count_if(is_there).alias("rows"),
        F.countDistinct(F.when(is_there, F.col("id"))).alias("ids"),
        F.count_if(~is_there & is_wanted).alias("missing"),
        F.count_if(~is_there & is_wanted & F.col("cold")).alias("cold_missing"),
        F.count_if(is_wanted & F.col("cold")).alias("cold"),
        F.count_if(is_there & ~is_wanted).alias("unknown"),
        F.min(F.when(is_there, F.col("dim"))).alias("min_dim"),
        F.max(F.when(is_there, F.col("dim"))).alias("max_dim"),
        F.count_if(is_there & ~finite).alias("not_finite"),
        F.min(F.when(finite, F.col("norm"))).alias("min_norm"),
        F.max(F.when(finite, F.col("norm"))).alias("max_norm"),
        F.avg(F.when(~F.isnan("cosine"), F.col("cosine"))).alias("cosine"),
        F.count_if(was_there).alias("before"),
        F.count_if(is_there & ~was_there).alias("new"),
        F.count_if(was_there & ~is_there).alias("vanished"),
    ).first()
    assert row is not None
    measures: dict[str, Any] = row.asDict()
    measures["repeated"] = measures["rows"] - measures["ids"]
    earlier, new, vanished = measures.pop("before"), measures.pop("new"), measures.pop("vanished")
    measures["new_share"] = new / measures["rows"] if earlier and measures["rows"] else None
    measures["vanished_share"] = vanished / earlier if earlier else None
    return {f"{name}_{measure}": value for measure, value in measures.items()}


def _dot(a: str, b: str) -> Column:
    from pyspark.sql import functions as F

    products = F.zip_with(a, b, lambda x, y: x.cast("double") * y.cast("double"))
    return F.aggregate(products, F.lit(0.0).cast("double"), lambda total, x: total + x)


def validation_profile(metrics: Mapping[str, float], before: Mapping[str, float] | None) -> Profile:
    """NDCG@10 of the model on its validation split, and the share by which it is below the previous release's."""
    now, then = metrics["NDCG@10"], (before or {}).get("NDCG@10")
    lost = None if not then else max(0.0, 1 - now / then)
    return {"validation_ndcg10": now, "validation_lost": lost}


def release_rules(
    settings: ReleaseSettings,
    profile: Mapping[str, float | None],
    *,
    output_dim: int,
    users: int,
    items: int,
    normalised: bool = True,
    alignment: str = "none: the same model",
) -> list[Rule]:
    """The rules of a release. ``users`` and ``items``: expected numbers. Vectors of a tower that is not ``normalised``
    may have any length but 0. Rules that compare with the previous release are included where ``profile`` has a value
    for them. ``alignment`` says how the vectors were made comparable.
    """
    least_users = settings.min_user_coverage * users
    shortest = 1 - settings.norm_tolerance if normalised else 1e-12
    longest = 1 + settings.norm_tolerance if normalised else None
    rules = [
        Rule("user_ids", least_users, users, "users with a vector, against users with a history"),
        Rule("item_ids", items, items, "items with a vector, against items of the catalogue"),
        Rule("user_missing", 0, users - least_users, "active users without a vector (release.min_user_coverage)"),
        Rule("item_missing", 0, 0, "items of the catalogue without a vector"),
        Rule("item_cold_missing", 0, 0, "items without any event that have no vector either"),
        Rule("item_cold", None, None, "items without any event"),
        Rule(
            "validation_ndcg10",
            settings.min_validation_ndcg10,
            1.0,
            "NDCG@10 of the model on its validation split (release.min_validation_ndcg10)",
        ),
        Rule(
            "validation_lost",
            None,
            settings.max_validation_lost,
            "share of the last release's validation NDCG@10 that this one lacks (release.max_validation_lost)",
        ),
    ]
    for name in ("user", "item"):
        rules += [
            Rule(f"{name}_repeated", 0, 0, f"{name}s with more than one vector"),
            Rule(f"{name}_unknown", 0, 0, f"{name}s with a vector that the snapshot does not have"),
            Rule(f"{name}_min_dim", output_dim, output_dim, "the shortest vector has the tower's dimension"),
            Rule(f"{name}_max_dim", output_dim, output_dim, "the longest vector has the tower's dimension"),
            Rule(f"{name}_not_finite", 0, 0, "vectors with NaN or infinity"),
            Rule(f"{name}_min_norm", shortest, longest, "the smallest norm (release.norm_tolerance)"),
            Rule(f"{name}_max_norm", shortest, longest, "the largest norm (release.norm_tolerance)"),
            Rule(
                f"{name}_cosine",
                settings.min_cosine,
                None,
                f"mean cosine with the same {name}'s vector in the previous release (release.min_cosine; alignment: "
                f"{alignment})",
            ),
            Rule(
                f"{name}_vanished_share",
                None,
                settings.max_vanished_share,
                f"share of the last release's {name}s that are missing (release.max_vanished_share)",
            ),
            Rule(
                f"{name}_new_share",
                None,
                settings.max_new_share,
                f"share of {name}s that the last release did not have (release.max_new_share)",
                "warn",
            ),
        ]
    compared = ("_cosine", "_vanished_share", "_new_share", "_lost")
    return [rule for rule in rules if not rule.measure.endswith(compared) or profile.get(rule.measure) is not None]
