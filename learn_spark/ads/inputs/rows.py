"""The rows that rankers train on and score: written by Spark as Parquet, in the order (event_time, event_id)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from learn_spark.ads.inputs.cohorts import with_cohorts, with_events
from learn_spark.ads.inputs.counts import COUNTS, EVENTS
from learn_spark.ads.inputs.numbering import write_in_order, write_numbered
from learn_spark.ads.inputs.recent import recent_items
from learn_spark.ads.inputs.shown import Shown
from learn_spark.ads.inputs.vectors import MASKED, VectorFiles, check_releases, moments_of, with_release, with_vectors
from learn_spark.ads.inputs.vocabulary import Vocabulary, with_rows
from learn_spark.core.settings.ads import RankingSettings
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import LedgerRow

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

RECENT, SHOWN_LIST = "recent", "list"
NUMBERS = ("time", "label", "weight", "user_row", "item_row", *COUNTS)  # of every part, beside row_0, row_1, ...
OF_TEST = ("event_id", "user_id", "item_id", "release", "user", "item", "request", "item_cohort", "user_cohort")


@dataclass(frozen=True)
class RowFiles:
    """``parts``: the rows of train, validation, test (those that there are) in the order (time, event_id).

    They have the columns NUMBERS and row_0, row_1, ... (``fields`` of them); test rows also have OF_TEST, where
    ``user``, ``item`` and ``request`` number the ``test_users``, ``test_items`` and ``test_requests`` from 0 on
    (request -1: none). ``releases`` are those that rows name by place. ``more`` columns are RECENT, the numbers of the
    vectors of the user's last events (null: none), and SHOWN_LIST, a hash of request_id (null: none).
    """

    parts: Mapping[str, StoragePath]
    fields: int
    vectors: VectorFiles
    releases: Sequence[LedgerRow]
    test_users: int
    test_items: int
    test_requests: int
    more: Sequence[str] = ()

    @property
    def columns(self) -> list[str]:
        """The columns of every part."""
        return [*NUMBERS, *(f"row_{number}" for number in range(self.fields)), *self.more]

    @property
    def model_ids(self) -> list[str]:
        """The towers whose vectors the exposures read."""
        return sorted({row.model_id for row in self.releases})


def write_rows(
    shown: Shown,
    parts: Mapping[str, Column],
    vocabularies: Mapping[str, Vocabulary],
    vocabulary_file: StoragePath,
    interactions: DataFrame,
    workspace: Workspace,
    folder: StoragePath,
    settings: RankingSettings,
    *,
    with_features: bool,
    small: bool,
) -> RowFiles:
    """Write the ``shown`` exposures below ``folder``, each of ``parts`` (a condition on ``time``) on its own.

    Raises LearnSparkError where rankers read features (``with_features``) and no exposure has a release, and where
    exposures would read releases of different towers.
    """
    from pyspark.sql import functions as F

    frame = with_rows(shown, vocabularies, vocabulary_file).drop("position")
    frame, releases = with_release(frame, workspace, settings.clock, folder / "coded")
    vectors, more = VectorFiles([], 0), []
    if with_features:
        check_releases(releases, shown.first, shown.last, settings.clock)
        recent = None
        if "nearest" in settings.inputs:
            recent = recent_items(frame, interactions, settings.nearest_events, settings.outcome_lag_hours)
            path = folder / "recent"
            recent.write.mode("overwrite").parquet(path.spark)  # it is read twice
            recent = frame.sparkSession.read.schema(recent.schema).parquet(path.spark)
            more.append(RECENT)
        frame, vectors = with_vectors(frame, workspace, releases, folder / "vectors", recent, small=small)
        if "list" in settings.inputs:
            frame = frame.withColumn(SHOWN_LIST, F.when(F.col("request_id").isNotNull(), F.xxhash64("request_id")))
            more.append(SHOWN_LIST)
    else:
        frame = frame.withColumns({name: F.lit(MASKED).cast("long") for name in ("user_row", "item_row")})
    first = frame.where(parts["test"]).agg(F.min("time")).collect()[0][0]
    frame = with_events(frame, interactions, moments_of(releases), first)
    # Rankers read the events that a release counts, as they read its vectors: none without a release.
    read = {name: F.when(F.col("release") < 0, 0).otherwise(F.col(name)).alias(name) for name in EVENTS}
    written, counts = {}, {"user": 0, "item": 0, "request": 0}
    columns = [*NUMBERS, *(f"row_{number}" for number in range(len(vocabularies))), *more]
    for name, condition in parts.items():
        rows, kept = frame.where(condition), [*columns, "event_id"]
        if name == "test":
            rows = with_cohorts(rows, settings.cohorts)
            for kind in counts:
                key = f"{kind}_id"
                every = frame.where(condition).where(F.col(key).isNotNull()).select(key).distinct()
                numbered, counts[kind] = write_numbered(every, [key], folder / f"{kind}s", first=0, small=small)
                rows = rows.join(numbered.withColumnRenamed("number", kind), key, "left").fillna(-1, [kind])
            kept = [*columns, *OF_TEST]
        written[name] = folder / name
        rows = rows.select(*(read.get(column, column) for column in kept))
        write_in_order(rows, ["time", "event_id"], written[name], small=small)
    numbers = (counts["user"], counts["item"], counts["request"])
    return RowFiles(written, len(vocabularies), vectors, releases, *numbers, more)
