"""The profile of a staged release, one Spark pass a table, and the rules it must keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from learn_spark.quality.gate import Rule
from learn_spark.settings.schema import Release

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def vector_profile(features: DataFrame, key: str, name: str) -> dict[str, float | None]:
    """Measures of one feature table: rows, distinct ids, dimensions, norms, vectors that are not finite."""
    from pyspark.sql import functions as F

    squares = F.aggregate("embedding", F.lit(0.0).cast("double"), lambda a, x: a + x.cast("double") * x.cast("double"))
    measured = features.select(key, F.size("embedding").alias("dim"), F.sqrt(squares).alias("norm"))
    finite = ~F.isnan("norm") & (F.col("norm") != float("inf"))
    row = measured.agg(
        F.count("*").alias("rows"),
        F.countDistinct(key).alias("ids"),
        F.min("dim").alias("min_dim"),
        F.max("dim").alias("max_dim"),
        F.count_if(~finite).alias("not_finite"),
        F.min(F.when(finite, F.col("norm"))).alias("min_norm"),
        F.max(F.when(finite, F.col("norm"))).alias("max_norm"),
    ).first()
    assert row is not None
    return {f"{name}_{measure}": value for measure, value in row.asDict().items()}


def release_rules(settings: Release, *, output_dim: int, users: int, items: int, normalised: bool = True) -> list[Rule]:
    """What a staged release must keep. ``users`` and ``items`` are how many there should be; the vectors of a
    tower that is not ``normalised`` have any length but 0.
    """
    least_users = settings.min_user_coverage * users
    shortest = 1 - settings.norm_tolerance if normalised else 1e-12
    longest = 1 + settings.norm_tolerance if normalised else None
    rules = [
        Rule("user_ids", least_users, users, "users with a vector, against users with a history"),
        Rule("item_ids", items, items, "items with a vector, against items of the catalogue"),
        Rule("user_repeated", 0, 0, "users with more than one vector"),
        Rule("item_repeated", 0, 0, "items with more than one vector"),
        Rule(
            "validation_ndcg10",
            settings.min_validation_ndcg10,
            1.0,
            "NDCG@10 of the model on its validation cut (release.min_validation_ndcg10)",
        ),
    ]
    for name in ("user", "item"):
        rules += [
            Rule(f"{name}_min_dim", output_dim, output_dim, "the shortest vector has the tower's dimension"),
            Rule(f"{name}_max_dim", output_dim, output_dim, "the longest vector has the tower's dimension"),
            Rule(f"{name}_not_finite", 0, 0, "vectors with NaN or infinity"),
            Rule(f"{name}_min_norm", shortest, longest, "the smallest norm (release.norm_tolerance)"),
            Rule(f"{name}_max_norm", shortest, longest, "the largest norm (release.norm_tolerance)"),
        ]
    return rules
