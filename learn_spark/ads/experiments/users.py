"""One row a user: the arm, the groups, and what happened in the experiment and before it, summed by Spark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from learn_spark.ads.experiments.assignment import arm_column
from learn_spark.ads.experiments.moments import SUMS
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.experiment import Cohort, Experiment
from learn_spark.core.times import as_micros, from_micros

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

MOST_GROUPS = 50
NO_GROUP = "none"
HISTORY = ("cold", "long-tail", "other")
_DAY = 86_400_000_000


@dataclass(frozen=True)
class Period:
    """Microseconds since 1970: the experiment is [start, end), what serves CUPED [before, start); None: no bound."""

    before: int | None
    start: int
    end: int | None

    @property
    def told(self) -> dict[str, str]:
        """The three times for people."""
        return {
            name: "open" if at is None else f"{from_micros(at):%Y-%m-%d %H:%M:%S} UTC"
            for name, at in vars(self).items()
        }


@dataclass(frozen=True)
class Users:
    """Where the table of users lies, and what was counted on the way.

    Its columns: ``seed`` (64 bits of the user's id), ``arm``, ``g<n>`` (the group in the n-th cohort of users), and
    ``sums`` (K for all exposures, then K for each of ``exposure_groups``, in that order). ``two_arms`` users are in two
    arms and left out; ``not_as_assigned`` have another arm than the assignment gives; ``changing`` tells, by cohort,
    users whose group is not the same on all their exposures.
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


def period_of(rows: DataFrame, settings: Experiment) -> Period:
    """The times of the settings; the first row with an arm is the start where they name none.

    Raises LearnSparkError where nothing tells the start.
    """
    from pyspark.sql import functions as F

    if settings.start is not None:
        start = as_micros(settings.start)
    else:
        found = rows.agg(F.min(F.when(F.col("arm").isNotNull(), F.unix_micros("event_time")))).first()
        assert found is not None
        if found[0] is None:
            raise LearnSparkError(
                "ab-report: no row of the logs has an arm, so nothing tells when the experiment began; set start, and "
                "either logs.columns.arm or assignment (for A/A, aa_splits, start is enough)"
            )
        start = int(found[0])
    before = None if settings.pre_days is None else start - round(settings.pre_days * _DAY)
    return Period(before, start, None if settings.end is None else as_micros(settings.end))


def make_users(rows: DataFrame, settings: Experiment, place: Path) -> Users:
    """Sum the rows of each user (Spark spills what does not fit) into Parquet below ``place``.

    A user who is in an arm at any time of the experiment is in it from the start on: rows of the period without an arm
    count too. Raises LearnSparkError where no row lies in the period, where ``pre_days`` names a time in which no user
    has a row, and for a cohort of too many groups.
    """
    from pyspark.sql import functions as F

    period = period_of(rows, settings)
    rows = _placed(rows, period)
    if settings.assignment is not None:
        a = settings.assignment
        given = arm_column("user_id", a.experiment or settings.name, a.salt, settings.shares, traffic=a.traffic)
        rows = rows.withColumn("assigned", given)
    else:
        rows = rows.withColumn("assigned", F.lit(None).cast("string"))
    rows = _with_item_history(rows, settings.cohorts)
    exposure_groups = _exposure_groups(rows, settings.cohorts)
    user_cohorts = tuple(name for name, cohort in settings.cohorts.items() if cohort.of_users)
    by_expression = [name for name in user_cohorts if settings.cohorts[name].by is not None]
    counted = rows.agg(
        *[F.count_if(F.col("place") == place_).alias(place_) for place_ in ("during", "before", "outside")],
        F.count_if((F.col("place") == "during") & F.col("arm").isNull()).alias("no_arm"),
        F.count_if((F.col("place") == "during") & F.col("revenue").isNotNull()).alias("with_revenue"),
        *[F.approx_count_distinct(F.col(f"cohort_{name}")).alias(f"many_{name}") for name in by_expression],
    ).first()
    assert counted is not None
    told = period.told
    if not counted["during"]:
        raise LearnSparkError(
            f"ab-report: none of {counted['before'] + counted['outside']:,} rows lies in the experiment's period, from "
            f"{told['start']} to {told['end']}; set start and end to where the logs are"
        )
    for name in by_expression:
        if counted[f"many_{name}"] > MOST_GROUPS:
            raise _too_many(name, counted[f"many_{name}"])
    during = F.col("place") == "during"
    sums = _sums(F.lit(True))
    for name, group in exposure_groups:
        sums += _sums(F.col(f"cohort_{name}") == group)
    first = [
        F.min_by(F.col(f"cohort_{name}"), F.when(during, F.struct("event_time", "event_id"))) for name in by_expression
    ]
    changes = [
        F.min(F.when(during, group)) != F.max(F.when(during, group))
        for group in (F.coalesce(F.col(f"cohort_{name}"), F.lit(NO_GROUP)) for name in by_expression)
    ]
    by_user = rows.groupBy("user_id").agg(
        F.count_if(during).alias("rows_during"),
        F.min(F.when(during, F.col("arm"))).alias("least"),
        F.max(F.when(during, F.col("arm"))).alias("most"),
        F.first("assigned").alias("assigned"),
        F.array(*sums).alias("sums"),
        *[
            F.coalesce(column, F.lit(NO_GROUP)).alias(f"cohort_{n}")
            for n, column in zip(by_expression, first, strict=True)
        ],
        *[column.alias(f"changes_{name}") for name, column in zip(by_expression, changes, strict=True)],
    )
    earlier = F.col("sums")[len(SUMS)]
    groups = [
        F.col(f"cohort_{name}") if name in by_expression else _by_history(earlier, settings.cohorts[name])
        for name in user_cohorts
    ]
    table = by_user.where(F.col("rows_during") > 0).select(
        F.xxhash64("user_id").alias("seed"),
        F.coalesce("least", "assigned").alias("arm"),
        (F.col("least") != F.col("most")).alias("two_arms"),
        (F.col("least") != F.col("assigned")).alias("not_as_assigned"),
        (F.col("least").isNotNull() & F.col("assigned").isNull()).alias("not_assigned"),
        *[column.alias(f"g{number}") for number, column in enumerate(groups)],
        *[f"changes_{name}" for name in by_expression],
        "sums",
    )
    path = place / "users"
    table.write.mode("overwrite").parquet(f"file:{path}")
    summed = rows.sparkSession.read.parquet(f"file:{path}")
    whole = summed.agg(
        F.count(F.lit(1)).alias("users"),
        F.count_if("two_arms").alias("two_arms"),
        F.count_if(F.col("not_as_assigned") | F.col("not_assigned")).alias("otherwise"),
        F.count_if(F.col("sums")[len(SUMS)] > 0).alias("with_history"),
        *[F.count_if(f"changes_{name}").alias(f"changes_{name}") for name in by_expression],
    ).first()
    assert whole is not None
    if settings.pre_days and not whole["with_history"]:
        raise LearnSparkError(
            f"ab-report: the pre-period is empty: none of {whole['users']:,} users of the experiment has an exposure "
            f"from {told['before']} to {told['start']}; add a log of that time, or set pre_days to 0"
        )
    return Users(
        path=path,
        period=period,
        users=whole["users"],
        rows_in_period=counted["during"],
        rows_before=counted["before"],
        rows_outside=counted["outside"],
        rows_without_arm=counted["no_arm"],
        two_arms=whole["two_arms"],
        not_as_assigned=None if settings.assignment is None else whole["otherwise"],
        changing={name: whole[f"changes_{name}"] for name in by_expression},
        user_cohorts=user_cohorts,
        exposure_groups=exposure_groups,
        revenue_known=counted["with_revenue"] > 0,
    )


def _placed(rows: DataFrame, period: Period) -> DataFrame:
    """The rows with ``place``: during, before or outside."""
    from pyspark.sql import functions as F

    micros = F.unix_micros("event_time")
    during = micros >= period.start
    if period.end is not None:
        during &= micros < period.end
    before = micros < period.start
    if period.before is not None:
        before &= micros >= period.before
    return rows.withColumn("place", F.when(during, "during").when(before, "before").otherwise("outside"))


def _sums(inside: Column) -> list[Column]:
    """moments.SUMS during, then before, of the rows for which ``inside`` holds."""
    from pyspark.sql import functions as F

    found = []
    for place in ("during", "before"):
        here = (F.col("place") == place) & inside
        weight, converted = F.col("weight"), F.col("converted").cast("double")
        whole = (
            F.sum(F.when(here, weight)),
            F.sum(F.when(here, weight * converted)),
            F.max(F.when(here & (weight > 0), converted)),
            F.sum(F.when(here, weight * F.coalesce("revenue", F.lit(0.0)))),
        )
        found += [F.coalesce(column, F.lit(0.0)) for column in whole]
    return found


def _with_item_history(rows: DataFrame, cohorts: Mapping[str, Cohort]) -> DataFrame:
    """``cohort_<name>`` for each cohort of items by their exposures before the start."""
    from pyspark.sql import functions as F

    wanted = {name: cohort for name, cohort in cohorts.items() if cohort.history == "item"}
    if not wanted:
        return rows
    earlier = rows.where(F.col("place") == "before").groupBy("item_id").agg(F.sum("weight").alias("earlier"))
    rows = rows.join(earlier, "item_id", "left")
    shown = F.coalesce("earlier", F.lit(0.0))
    return rows.withColumns({f"cohort_{name}": _by_history(shown, cohort) for name, cohort in wanted.items()})


def _by_history(earlier: Column, cohort: Cohort) -> Column:
    from pyspark.sql import functions as F

    cold, long_tail = cohort.thresholds
    return F.when(earlier < cold, HISTORY[0]).when(earlier < long_tail, HISTORY[1]).otherwise(HISTORY[2])


def _exposure_groups(rows: DataFrame, cohorts: Mapping[str, Cohort]) -> tuple[tuple[str, str], ...]:
    """(cohort, group) of all cohorts of exposures, as they occur in the experiment."""
    from pyspark.sql import functions as F

    found = []
    for name, cohort in cohorts.items():
        if cohort.of_users:
            continue
        column = F.col(f"cohort_{name}")
        here = rows.where((F.col("place") == "during") & column.isNotNull()).select(column).distinct()
        groups = sorted(row[0] for row in here.limit(MOST_GROUPS + 1).collect())
        if len(groups) > MOST_GROUPS:
            raise _too_many(name, len(groups))
        found += [(name, group) for group in groups]
    return tuple(found)


def _too_many(name: str, groups: int) -> LearnSparkError:
    return LearnSparkError(
        f"ab-report: cohorts.{name} makes {groups} groups or more; {MOST_GROUPS} are the most. Let its expression put "
        "values together"
    )
