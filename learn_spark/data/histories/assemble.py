"""The histories stage: interactions become one padded row per user, for all users or those whose events changed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Observation
from pyspark.sql import functions as F

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.histories import HistoriesSettings
from learn_spark.core.stages.context import StageContext
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.observed import observed
from learn_spark.core.tables.small import small_plans
from learn_spark.data.histories.changes import Changed, changed_users, replace_users
from learn_spark.data.histories.events import indexed_events, usable_events
from learn_spark.data.histories.rows import padded_rows, sorted_aggregates

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# Sorting is fastest in partitions that fit into the processor's caches.
EVENTS_PER_PARTITION = 300_000
SAMPLED = 16


@dataclass(frozen=True)
class Size:
    """Approximate numbers of users and events, which decide the layout only."""

    users: int
    events: int

    @staticmethod
    def of(events: DataFrame) -> Size:
        """The size of ``events``, by one pass over the user ids."""
        # Of a sixteenth of the users: the sketch takes longer than reading.
        sample = F.when(F.pmod(F.xxhash64("user_id"), F.lit(SAMPLED)) == 0, F.col("user_id"))
        row = events.agg(F.approx_count_distinct(sample, 0.02), F.count("*")).first()
        assert row is not None
        return Size(max(1, SAMPLED * row[0]), row[1])


def assemble(events: DataFrame, settings: HistoriesSettings, size: Size) -> DataFrame:
    """Rows of schemas/user_histories.yaml, in ``size.users / rows_per_file`` partitions.

    ``events`` are those of ``indexed_events``. Memory does not grow with the longest log.
    """
    files = max(1, math.ceil(size.users / settings.rows_per_file))
    partitions = files * max(1, math.ceil(size.events / files / EVENTS_PER_PARTITION))
    return padded_rows(events, settings, partitions).coalesce(files)


def assemble_few(events: DataFrame, settings: HistoriesSettings) -> pa.Table:
    """Rows as of ``assemble``, in one partition and in this process."""
    return padded_rows(events, settings, 1).toArrow().cast(contract("user_histories").arrow_schema())


def run(context: StageContext) -> StageResult:
    """Update user_histories to the pinned versions of its inputs."""
    try:
        few = small_plans(context.spark, context.snapshot("interactions").rows)
        with few, sorted_aggregates(context.spark):
            return _run(context)
    finally:
        context.staging.remove()


@dataclass(frozen=True)
class _Written:
    """Events read, users of the written rows, their events, those kept, users longer than a row, and with a target."""

    read: int
    users: int
    events: int
    kept: int
    capped: int
    tested: int


def _run(context: StageContext) -> StageResult:
    settings = context.settings.histories
    changed = changed_users(context)
    interactions = context.read("interactions")
    if changed is not None:
        if changed.users == 0:
            return StageResult(0, 0, counts={"users_rebuilt": 0}, notes=("no user's events changed",))
        interactions = interactions.join(changed.frame, "user_id", "left_semi")
    usable = usable_events(interactions, settings)
    if changed is not None and context.snapshot("interactions").is_small:
        written = _replace_few(context, usable, changed)
    else:
        written = _write(context, usable, changed)
    if written is None:
        return StageResult(0, 0, counts={"users_rebuilt": 0}, notes=("the users that changed have no events left",))
    if written.events != written.read:
        raise LearnSparkError(
            f"histories: {written.read:,} events were read, but the rows written have {written.events:,}"
        )
    scope = "all users" if changed is None else f"{changed.users:,} users whose events changed"
    return StageResult(
        rows_in=written.read,
        rows_out=written.users,
        counts={
            "events_kept": written.kept,
            "users_capped": written.capped,
            "users_with_test": written.tested,
            "users_rebuilt": written.users,
        },
        notes=(
            f"{scope}: {written.kept:,} of {written.read:,} events kept; {written.capped:,} users longer than "
            f"{settings.max_length}; {written.tested:,} users with a test target",
        ),
    )


def _replace_few(context: StageContext, usable: DataFrame, changed: Changed) -> _Written | None:
    """Replace the rows of the changed users; None where they have no events left."""
    settings = context.settings.histories
    events, events_in = indexed_events(usable, context.read("item_index"), settings), Observation()
    rows = assemble_few(events.observe(events_in, F.count(F.lit(1)).alias("events")), settings)
    read = _observed(events_in, context)["events"]
    replace_users(context, rows, changed)
    if not read:
        return None
    newest = rows.filter(pc.equal(rows["chunk"], 0))
    return _Written(
        read=read,
        users=newest.num_rows,
        events=_sum(newest["n_events"]),
        kept=_sum(rows["length"]),
        capped=_sum(pc.greater(newest["n_events"], newest["length"])),
        tested=_sum(pc.greater(rows["length"], rows["validation_length"])),
    )


def _sum(column: pa.ChunkedArray) -> int:
    return int(pc.sum(column).as_py() or 0)


def _write(context: StageContext, usable: DataFrame, changed: Changed | None) -> _Written | None:
    """Write the rows of all users, or of those that changed; None where these have no events left."""
    settings, path, table = context.settings.histories, context.path("user_histories"), contract("user_histories")
    size = Size.of(usable)
    if size.events == 0:
        if changed is None:
            raise LearnSparkError(
                "histories: no event is left after histories.as_of, event_types and min_value; change these settings"
            )
        replace_users(context, context.spark.createDataFrame([], table.spark_schema()), changed)
        return None
    events = indexed_events(usable, context.read("item_index"), settings)
    events_in, rows_made = Observation(), Observation()
    rows = assemble(events.observe(events_in, F.count(F.lit(1)).alias("events")), settings, size).observe(
        rows_made,
        F.count_if(F.col("chunk") == 0).alias("users"),
        F.coalesce(F.sum(F.when(F.col("chunk") == 0, F.col("n_events"))), F.lit(0)).alias("events"),
        F.coalesce(F.sum("length"), F.lit(0)).alias("kept"),
        F.count_if((F.col("chunk") == 0) & (F.col("n_events") > F.col("length"))).alias("capped"),
        F.count_if(F.col("length") > F.col("validation_length")).alias("tested"),
    )
    if changed is None:
        delta.overwrite(rows, path, table)
    else:
        replace_users(context, rows, changed)
    return _Written(read=_observed(events_in, context)["events"], **_observed(rows_made, context))


def _observed(counts: Observation, context: StageContext) -> dict[str, int]:
    metrics: dict[str, int] | None = observed(counts, context.spark)
    if metrics is None:
        raise LearnSparkError("histories: Spark reported no counts of the written rows; run the stage again")
    return metrics
