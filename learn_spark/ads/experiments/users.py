"""One row a user: arm, groups, and sums of the experiment and of the time before it, computed by Spark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from learn_spark.ads.experiments.assignment import arm_column
from learn_spark.ads.experiments.cohorts import by_history, check_groups, exposure_groups, with_item_history
from learn_spark.ads.experiments.moments import SUMS
from learn_spark.ads.experiments.period import Period, period_of
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.experiment import ExperimentSettings

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

NO_GROUP = "none"


@dataclass(frozen=True)
class RowCounts:
    """Rows in the period, before it and outside both; of those in the period, without an arm and with revenue."""

    during: int
    before: int
    outside: int
    without_arm: int
    with_revenue: int


@dataclass(frozen=True)
class UserCounts:
    """Users of the experiment: all; those of rows in two arms; those logged in another arm than the assignment's;
    those with an exposure before the start; by cohort, those whose group changes between their exposures.
    """

    users: int
    two_arms: int
    not_as_assigned: int
    with_history: int
    changing: Mapping[str, int]


@dataclass(frozen=True)
class Users:
    """The table of users at ``path`` (Parquet), and the counts of rows and users that it was made from.

    Its columns: ``seed`` (64 bits of the user's id), ``arm``, ``g<n>`` (the group in the n-th cohort of users), and
    ``sums`` (K for all exposures, then K for each of ``exposure_groups``, in that order). ``two_arms`` users are in two
    arms and left out; ``not_as_assigned`` is None without an assignment in the settings.
    """

    path: Path
    period: Period
    users: int
    rows_in_period: int
    rows_before: int
    rows_outside: int
    rows_without_arm: int
    two_arms: int
    not_as_assigned: int | None
    changing: Mapping[str, int]
    user_cohorts: tuple[str, ...]
    exposure_groups: tuple[tuple[str, str], ...]
    revenue_known: bool


def make_users(rows: DataFrame, settings: ExperimentSettings, scratch: Path) -> Users:
    """Sum the rows of each user (Spark spills what does not fit) into Parquet below ``scratch``.

    A user with an arm at any time of the experiment is in it from the start on: their rows of the period without an
    arm count too. Raises LearnSparkError if no row lies in the period, if ``pre_days`` names a time in which no user
    has a row, and for a cohort of too many groups.
    """
    period = period_of(rows, settings)
    rows = classify_rows(rows, period, settings)
    groups = exposure_groups(rows, settings.cohorts)
    user_cohorts = tuple(name for name, cohort in settings.cohorts.items() if cohort.of_users)
    by_expression = [name for name in user_cohorts if settings.cohorts[name].by is not None]
    row_counts = count_rows(rows, period, by_expression)
    table = sum_by_user(rows, settings, user_cohorts, groups)
    path = scratch / "users"
    user_counts = count_users(write_users(table, path), by_expression)
    if settings.pre_days and not user_counts.with_history:
        raise LearnSparkError(
            f"ab-report: the pre-period is empty: none of {user_counts.users:,} users of the experiment has an "
            f"exposure from {period.texts['before']} to {period.texts['start']}; add a log of that time, or set "
            "pre_days to 0"
        )
    return Users(
        path=path,
        period=period,
        users=user_counts.users,
        rows_in_period=row_counts.during,
        rows_before=row_counts.before,
        rows_outside=row_counts.outside,
        rows_without_arm=row_counts.without_arm,
        two_arms=user_counts.two_arms,
        not_as_assigned=None if settings.assignment is None else user_counts.not_as_assigned,
        changing=user_counts.changing,
        user_cohorts=user_cohorts,
        exposure_groups=groups,
        revenue_known=row_counts.with_revenue > 0,
    )


def classify_rows(rows: DataFrame, period: Period, settings: ExperimentSettings) -> DataFrame:
    """``rows`` with ``place`` (during, before, outside), the ``assigned`` arm, and cohorts of items by history."""
    from pyspark.sql import functions as F

    assigned = F.lit(None).cast("string")
    if (a := settings.assignment) is not None:
        name = a.experiment or settings.name
        assigned = arm_column("user_id", name, a.salt, settings.shares, traffic=a.traffic)
    rows = rows.withColumn("place", period.place()).withColumn("assigned", assigned)
    return with_item_history(rows, settings.cohorts)


def count_rows(rows: DataFrame, period: Period, by_expression: Sequence[str]) -> RowCounts:
    """The counts of classified ``rows``.

    Raises LearnSparkError if none lies in the period, or if one of the cohorts ``by_expression`` has too many groups.
    """
    from pyspark.sql import functions as F

    during = F.col("place") == "during"
    counts = rows.agg(
        *[F.count_if(F.col("place") == place).alias(place) for place in ("during", "before", "outside")],
        F.count_if(during & F.col("arm").isNull()).alias("without_arm"),
        F.count_if(during & F.col("revenue").isNotNull()).alias("with_revenue"),
        *[F.approx_count_distinct(F.col(f"cohort_{name}")).alias(f"groups_{name}") for name in by_expression],
    ).first()
    assert counts is not None
    if not counts["during"]:
        raise LearnSparkError(
            f"ab-report: none of {counts['before'] + counts['outside']:,} rows lies in the experiment's period, from "
            f"{period.texts['start']} to {period.texts['end']}; set start and end to the time of the logs"
        )
    for name in by_expression:
        check_groups(name, counts[f"groups_{name}"])
    return RowCounts(
        *(counts[name] for name in ("during", "before", "outside", "without_arm", "with_revenue")),
    )


def sum_by_user(
    rows: DataFrame, settings: ExperimentSettings, user_cohorts: Sequence[str], groups: Sequence[tuple[str, str]]
) -> DataFrame:
    """One row for each user with a row in the period: the columns of ``Users``, and flags that ``count_users`` reads.

    A user's group is that of their first exposure in the experiment.
    """
    from pyspark.sql import functions as F

    by_expression = [name for name in user_cohorts if settings.cohorts[name].by is not None]
    during = F.col("place") == "during"
    sums = _sums(F.lit(True))
    for name, label in groups:
        sums += _sums(F.col(f"cohort_{name}") == label)
    first_groups, changes = [], []
    for name in by_expression:
        group = F.col(f"cohort_{name}")
        first = F.min_by(group, F.when(during, F.struct("event_time", "event_id")))
        first_groups.append(F.coalesce(first, F.lit(NO_GROUP)).alias(f"cohort_{name}"))
        in_period = F.when(during, F.coalesce(group, F.lit(NO_GROUP)))
        changes.append((F.min(in_period) != F.max(in_period)).alias(f"changes_{name}"))
    by_user = rows.groupBy("user_id").agg(
        F.count_if(during).alias("rows_during"),
        F.min(F.when(during, F.col("arm"))).alias("first_arm"),
        F.max(F.when(during, F.col("arm"))).alias("last_arm"),
        F.first("assigned").alias("assigned"),
        F.array(*sums).alias("sums"),
        *first_groups,
        *changes,
    )
    earlier = F.col("sums")[len(SUMS)]
    group_columns = [
        F.col(f"cohort_{name}") if name in by_expression else by_history(earlier, settings.cohorts[name])
        for name in user_cohorts
    ]
    not_assigned = F.col("first_arm").isNotNull() & F.col("assigned").isNull()
    return by_user.where(F.col("rows_during") > 0).select(
        F.xxhash64("user_id").alias("seed"),
        F.coalesce("first_arm", "assigned").alias("arm"),
        (F.col("first_arm") != F.col("last_arm")).alias("two_arms"),
        ((F.col("first_arm") != F.col("assigned")) | not_assigned).alias("not_as_assigned"),
        *[column.alias(f"g{number}") for number, column in enumerate(group_columns)],
        *[f"changes_{name}" for name in by_expression],
        "sums",
    )


def write_users(users: DataFrame, path: Path) -> DataFrame:
    """``users`` as read back from ``path``, where they are written as Parquet."""
    users.write.mode("overwrite").parquet(f"file:{path}")
    return users.sparkSession.read.parquet(f"file:{path}")


def count_users(users: DataFrame, by_expression: Sequence[str]) -> UserCounts:
    """The counts of the table that ``sum_by_user`` makes."""
    from pyspark.sql import functions as F

    counts = users.agg(
        F.count(F.lit(1)).alias("users"),
        F.count_if("two_arms").alias("two_arms"),
        F.count_if("not_as_assigned").alias("not_as_assigned"),
        F.count_if(F.col("sums")[len(SUMS)] > 0).alias("with_history"),
        *[F.count_if(f"changes_{name}").alias(f"changes_{name}") for name in by_expression],
    ).first()
    assert counts is not None
    return UserCounts(
        users=counts["users"],
        two_arms=counts["two_arms"],
        not_as_assigned=counts["not_as_assigned"],
        with_history=counts["with_history"],
        changing={name: counts[f"changes_{name}"] for name in by_expression},
    )


def _sums(inside: Column) -> list[Column]:
    """moments.SUMS during, then before, of the rows for which ``inside`` is true."""
    from pyspark.sql import functions as F

    columns: list[Column] = []
    for place in ("during", "before"):
        counted = (F.col("place") == place) & inside
        weight, converted = F.col("weight"), F.col("converted").cast("double")
        sums = (
            F.sum(F.when(counted, weight)),
            F.sum(F.when(counted, weight * converted)),
            F.max(F.when(counted & (weight > 0), converted)),
            F.sum(F.when(counted, weight * F.coalesce("revenue", F.lit(0.0)))),
        )
        columns += [F.coalesce(column, F.lit(0.0)) for column in sums]
    return columns
