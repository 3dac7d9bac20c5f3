"""The audit of a staged release: one Spark query measures each table as it will be, and rules bound the measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from learn_spark.core.quality.gate import Rule
from learn_spark.core.settings.features import ReleaseSettings
from learn_spark.core.stages.context import StageContext
from learn_spark.core.tables import delta
from learn_spark.features.alignment import fit_rotation, rotated
from learn_spark.features.ledger import LedgerRow
from learn_spark.features.read import KEYS, NAMES
from learn_spark.features.staged_release import StagedTable

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

Profile = dict[str, float | None]


def table_profile(
    name: str, key: str, after: DataFrame, expected: DataFrame, before: DataFrame | None = None
) -> Profile:
    """Measures of a feature table after the release; each name begins with ``name``_.

    ``after`` (``key``, embedding): the table after the release. ``expected`` (id, cold): the entities of the release;
    cold: without an event. ``before``: the previous release in the same space (``key``, embedding).

    Measures: rows, ids, repeated (rows - ids); missing and cold_missing: expected entities without a vector; unknown:
    entities with a vector that are not expected; minimum and maximum of dimension and norm; not_finite. Measures
    against ``before``, else null: cosine (mean over the entities in both), new_share (of the rows of ``after``),
    vanished_share (of the rows of ``before``).
    """
    from pyspark.sql import functions as F

    computed = after.select(F.col(key).alias("id"), F.col("embedding").alias("now"), F.lit(True).alias("in_after"))
    entities = expected.select("id", "cold", F.lit(True).alias("in_expected"))
    joined = computed.join(entities, "id", "full_outer")
    if before is None:
        joined = joined.withColumns({"then": F.lit(None).cast("array<float>"), "in_before": F.lit(None)})
    else:
        old = before.select(F.col(key).alias("id"), F.col("embedding").alias("then"), F.lit(True).alias("in_before"))
        joined = joined.join(old, "id", "full_outer")
    norm = F.sqrt(_dot("now", "now"))
    cosine = _dot("now", "then") / (norm * F.sqrt(_dot("then", "then")))
    measured = joined.withColumns({"norm": norm, "cosine": cosine, "dim": F.size("now")})
    finite = ~F.isnan("norm") & (F.col("norm") != float("inf"))
    has_vector, is_expected = F.col("in_after").isNotNull(), F.col("in_expected").isNotNull()
    had_vector = F.col("in_before").isNotNull()
    row = measured.agg(
        F.count_if(has_vector).alias("rows"),
        F.countDistinct(F.when(has_vector, F.col("id"))).alias("ids"),
        F.count_if(~has_vector & is_expected).alias("missing"),
        F.count_if(~has_vector & is_expected & F.col("cold")).alias("cold_missing"),
        F.count_if(is_expected & F.col("cold")).alias("cold"),
        F.count_if(has_vector & ~is_expected).alias("unknown"),
        F.min(F.when(has_vector, F.col("dim"))).alias("min_dim"),
        F.max(F.when(has_vector, F.col("dim"))).alias("max_dim"),
        F.count_if(has_vector & ~finite).alias("not_finite"),
        F.min(F.when(finite, F.col("norm"))).alias("min_norm"),
        F.max(F.when(finite, F.col("norm"))).alias("max_norm"),
        F.avg(F.when(~F.isnan("cosine"), F.col("cosine"))).alias("cosine"),
        F.count_if(had_vector).alias("before"),
        F.count_if(has_vector & ~had_vector).alias("new"),
        F.count_if(had_vector & ~has_vector).alias("vanished"),
    ).first()
    assert row is not None
    measures: dict[str, Any] = row.asDict()
    measures["repeated"] = measures["rows"] - measures["ids"]
    earlier, new, vanished = measures.pop("before"), measures.pop("new"), measures.pop("vanished")
    measures["new_share"] = new / measures["rows"] if earlier and measures["rows"] else None
    measures["vanished_share"] = vanished / earlier if earlier else None
    return {f"{name}_{measure}": value for measure, value in measures.items()}


def release_profile(
    context: StageContext,
    parts: Mapping[str, StagedTable],
    histories: DataFrame,
    row: LedgerRow,
    before: LedgerRow | None,
) -> tuple[Profile, str]:
    """(the measures of both tables as they will be, how they were aligned with the release ``before``)."""
    from pyspark.sql import functions as F

    spark = context.spark
    profile = validation_profile(row.metrics, None if before is None else before.metrics)
    then: dict[str, DataFrame | None] = dict.fromkeys(parts)
    alignment = "none: the same model"
    if before is not None:
        then = {t: delta.read(spark, context.path(t), before.version(t)) for t in parts}
    if before is not None and before.model_id != row.model_id:
        # Users and items live in one space: the items that both have turn both tables.
        old = then["item_features"]
        assert old is not None
        turn = fit_rotation(old, parts["item_features"].after(), "item_id")
        alignment = "orthogonal Procrustes on the items of both"
        then = {
            table: None if turn is None or frame is None else rotated(frame, KEYS[table], turn)
            for table, frame in then.items()
        }
    seen = histories.select(F.explode(F.slice("item_index", F.lit(1), F.col("length"))).alias("item_index")).distinct()
    events = seen.withColumn("cold", F.lit(False))
    expected = {
        "user_features": parts["user_features"].expected.select("id", F.lit(False).alias("cold")),
        "item_features": parts["item_features"]
        .expected.join(events, "item_index", "left")
        .select("id", F.coalesce("cold", F.lit(True)).alias("cold")),
    }
    for table, part in parts.items():
        profile |= table_profile(NAMES[table], part.key, part.after(), expected[table], then[table])
    return profile, alignment


def _dot(a: str, b: str) -> Column:
    from pyspark.sql import functions as F

    products = F.zip_with(a, b, lambda x, y: x.cast("double") * y.cast("double"))
    return F.aggregate(products, F.lit(0.0).cast("double"), lambda total, x: total + x)


def validation_profile(metrics: Mapping[str, float], before: Mapping[str, float] | None) -> Profile:
    """NDCG@10 on the model's validation split, and the relative loss against the previous release's model."""
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
    """The rules of a release.

    ``users`` and ``items``: expected numbers of vectors. If the tower is not ``normalised``, a norm may have any value
    above 0. Rules that compare with the previous release are included only if ``profile`` has a value for them.
    ``alignment``: how the vectors of both releases were made comparable, for the rules' meaning.
    """
    least_users = settings.min_user_coverage * users
    shortest = 1 - settings.norm_tolerance if normalised else 1e-12
    longest = 1 + settings.norm_tolerance if normalised else None
    rules = [
        Rule("user_ids", least_users, users, "users with a vector, against users with a history"),
        Rule("item_ids", items, items, "items with a vector, against items of the catalogue"),
        Rule("user_missing", 0, users - least_users, "active users without a vector (release.min_user_coverage)"),
        Rule("item_missing", 0, 0, "items of the catalogue without a vector"),
        Rule("item_cold_missing", 0, 0, "items without an event and without a vector"),
        Rule("item_cold", None, None, "items without an event"),
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
            "relative loss of validation NDCG@10 against the previous release (release.max_validation_lost)",
        ),
    ]
    for name in ("user", "item"):
        rules += [
            Rule(f"{name}_repeated", 0, 0, f"{name}s with more than one vector"),
            Rule(f"{name}_unknown", 0, 0, f"{name}s with a vector that are not in the release's input tables"),
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
                f"share of the previous release's {name}s that are missing (release.max_vanished_share)",
            ),
            Rule(
                f"{name}_new_share",
                None,
                settings.max_new_share,
                f"share of {name}s that the previous release did not have (release.max_new_share)",
                "warn",
            ),
        ]
    compared = ("_cosine", "_vanished_share", "_new_share", "_lost")
    return [rule for rule in rules if not rule.measure.endswith(compared) or profile.get(rule.measure) is not None]
