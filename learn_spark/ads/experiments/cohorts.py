"""Cohorts of an experiment as columns: by expressions, and by exposures before the start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from learn_spark.ads.cohorts import COHORTS
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.experiment import ExperimentCohortSettings

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

MAX_GROUPS = 50


def with_item_history(rows: DataFrame, cohorts: Mapping[str, ExperimentCohortSettings]) -> DataFrame:
    """``rows`` with ``cohort_<name>`` for each cohort of items by their exposures before the start."""
    from pyspark.sql import functions as F

    of_items = {name: cohort for name, cohort in cohorts.items() if cohort.history == "item"}
    if not of_items:
        return rows
    earlier = rows.where(F.col("place") == "before").groupBy("item_id").agg(F.sum("weight").alias("earlier"))
    rows = rows.join(earlier, "item_id", "left")
    exposures = F.coalesce("earlier", F.lit(0.0))
    return rows.withColumns({f"cohort_{name}": by_history(exposures, cohort) for name, cohort in of_items.items()})


def by_history(earlier: Column, cohort: ExperimentCohortSettings) -> Column:
    """The group in COHORTS by the number of ``earlier`` exposures."""
    from pyspark.sql import functions as F

    cold, long_tail = cohort.thresholds
    return F.when(earlier < cold, COHORTS[0]).when(earlier < long_tail, COHORTS[1]).otherwise(COHORTS[2])


def exposure_groups(rows: DataFrame, cohorts: Mapping[str, ExperimentCohortSettings]) -> tuple[tuple[str, str], ...]:
    """(cohort, group) of all cohorts of exposures, as they occur in the experiment.

    Raises LearnSparkError for a cohort of more than MAX_GROUPS groups.
    """
    from pyspark.sql import functions as F

    pairs: list[tuple[str, str]] = []
    for name, cohort in cohorts.items():
        if cohort.of_users:
            continue
        column = F.col(f"cohort_{name}")
        groups_of = rows.where((F.col("place") == "during") & column.isNotNull()).select(column).distinct()
        groups = sorted(row[0] for row in groups_of.limit(MAX_GROUPS + 1).collect())
        check_groups(name, len(groups))
        pairs += [(name, group) for group in groups]
    return tuple(pairs)


def check_groups(cohort: str, groups: int) -> None:
    """Raise LearnSparkError if a cohort has more than MAX_GROUPS groups."""
    if groups > MAX_GROUPS:
        raise LearnSparkError(
            f"ab-report: cohorts.{cohort} makes {groups} groups or more; {MAX_GROUPS} are the most. Let its expression "
            "put values together"
        )


def title_of(name: str, cohort: ExperimentCohortSettings) -> str:
    """What the cohort divides, and by what, for readers."""
    if cohort.history is None:
        divided = "users, by their first exposure" if cohort.of == "user" else "exposures"
        return f"{name}: {divided} ({cohort.by})"
    cold, long_tail = cohort.thresholds
    return (
        f"{name}: {cohort.history}s by exposures before the start: cold below {cold:,}, long-tail below {long_tail:,}, "
        "other from there on"
    )
