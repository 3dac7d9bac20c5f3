"""The point-in-time join over a thousand releases, and over a backfilled year, against a search event by event."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.features.point_in_time import Clock, features_at, releases_at
from tests.features.many_releases import START, Event, ManyReleases

COLUMNS = "number int, user_id string, item_id string, event_time timestamp"


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> ManyReleases:
    return ManyReleases(str(tmp_path_factory.mktemp("thousand")), 1_000, backfilled=False)


LOG_ROWS = 40  # that Spark reads of Delta's logs


def events_between(first: datetime, last: datetime, count: int, exact: Sequence[datetime]) -> list[Event]:
    """Events of users and items, some of them in no release, at random times and at the ``exact`` ones."""
    chance = random.Random(3)
    times = [first + (last - first) * chance.random() for _ in range(count)]
    return [
        (number, f"u{chance.randrange(14)}", f"i{chance.randrange(5)}", time)
        for number, time in enumerate([*times, *exact])
    ]


def as_asked(rows: Sequence[Any]) -> dict[int, tuple[Any, Any, Any]]:
    found = {row.number: (row.release_id, row.user_embedding, row.item_embedding) for row in rows}
    assert len(found) == len(rows)
    return {
        number: (release, *(None if vector is None else pytest.approx(vector[0]) for vector in vectors))
        for number, (release, *vectors) in found.items()
    }


def joined_at_a_cost(
    spark: SparkSession, world: ManyReleases, events: Sequence[Event], clock: Clock
) -> tuple[dict[int, tuple[Any, Any, Any]], int, int, int]:
    """(``features_at`` by the number of the event; leaves of its plan; its Spark jobs; rows that it reads of files)."""
    context, group = spark.sparkContext, f"features_at {clock} {len(events)}"
    asked = spark.createDataFrame(events, COLUMNS)
    frame = features_at(spark, asked, clock=clock, workspace=world.workspace)
    context.setJobGroup(group, "counted")
    try:
        rows = frame.collect()
    finally:
        context.setLocalProperty("spark.jobGroup.id", None)  # type: ignore[arg-type]
    context._jsc.sc().listenerBus().waitUntilEmpty()  # what Spark counted has reached the store
    tracker, store = context.statusTracker(), context._jsc.sc().statusStore()
    jobs = tracker.getJobIdsForGroup(group)
    stages = {stage for job in jobs if (info := tracker.getJobInfo(job)) is not None for stage in info.stageIds}
    read = skipped = 0
    for stage in stages:
        try:
            read += store.lastStageAttempt(stage).inputRecords()
        except Py4JJavaError as error:  # Spark forgets a stage that it skipped, which read nothing, before all others
            if "NoSuchElement" not in str(error):
                raise
            skipped += 1
    assert skipped <= sum(store.job(job).numSkippedStages() for job in jobs)
    leaves = frame._jdf.queryExecution().optimizedPlan().collectLeaves().size()  # type: ignore[operator]
    return as_asked(rows), leaves, len(jobs), read


def test_a_thousand_releases_are_one_read_of_each_table(spark: SparkSession, thousand: ManyReleases) -> None:
    for name, table in thousand.tables.items():
        for version in (1, 100, len(table.versions) - 1):
            rows = Snapshot.open(thousand.workspace.table(name), version).to_arrow()
            vectors = [vector[0] for vector in rows["embedding"].to_pylist()]
            found = dict(zip(rows[table.key].to_pylist(), vectors, strict=True))
            assert found == pytest.approx(table.versions[version])
    published = [row.written_at for row in thousand.ledger[::5]]
    events = {
        "published": events_between(START - timedelta(hours=2), START + timedelta(hours=1_002), 800, published),
        "as_of": events_between(START - timedelta(days=502), START + timedelta(days=502), 800, []),
    }
    clock: Clock
    costs = []
    for clock in events:  # type: ignore[assignment]
        found, leaves, jobs, read = joined_at_a_cost(spark, thousand, events[clock], clock)
        wanted = thousand.expected(clock, events[clock])
        assert found == wanted
        assert len({release for release, _, _ in wanted.values()}) > 400
        micros = np.array([round(at.timestamp() * 1e6) for *_, at in events[clock]])
        releases, place = releases_at(thousand.workspace, micros, clock)
        by_arrow = [None if at < 0 else releases[at].release_id for at in place]
        assert by_arrow == [wanted[number][0] for number, *_ in events[clock]]
        assert read <= thousand.changes + LOG_ROWS  # each row, and each change of it, once
        costs.append((leaves, jobs))
    # Twenty releases cost as many scans and jobs.
    few = [(n, "u1", "i1", START + timedelta(hours=500 + n, minutes=5)) for n in range(20)]
    found, leaves, jobs, _ = joined_at_a_cost(spark, thousand, few, "published")
    assert found == thousand.expected("published", few)
    assert [cost[0] for cost in costs] == [leaves] * 2
    assert max(cost[1] for cost in costs) <= jobs + 3  # joins of few rows need no shuffle, which is a job
    assert leaves == 6  # events, ledger, and of each table the rows of a version and the changes since


def test_a_backfilled_year_is_joined_as_of_its_days(spark: SparkSession, tmp_path: Path) -> None:
    year = ManyReleases(str(tmp_path), 365, backfilled=True)
    first = year.ledger[0].as_of
    midnights = [first + timedelta(days=days, microseconds=more) for days in range(-1, 366, 9) for more in (-1, 0)]
    events = events_between(first - timedelta(days=3), first + timedelta(days=370), 500, midnights)
    found, _, _, read = joined_at_a_cost(spark, year, events, "as_of")
    wanted = year.expected("as_of", events)
    assert found == wanted
    assert len({release for release, _, _ in wanted.values()}) > 250
    assert read <= year.changes + LOG_ROWS
    # No backfilled release was ever in force.
    nothing, _, _, read = joined_at_a_cost(spark, year, events[:3], "published")
    assert set(nothing.values()) == {(None, None, None)}
    assert read == 0


def test_an_expired_release_is_read_while_its_files_exist_and_named_when_they_do_not(
    spark: SparkSession, thousand: ManyReleases
) -> None:
    served = {
        number: (row, START + timedelta(hours=int(row.release_id[1:]), minutes=5))
        for number, row in enumerate(row for row in thousand.ledger if row.status == "expired")
    }
    wanted = thousand.expected("published", [(number, "u1", "i1", at) for number, (_, at) in served.items()])
    row, at = next((row, at) for number, (row, at) in served.items() if wanted[number][0] == row.release_id)
    events = [(0, "u1", "i1", at)]
    assert joined_at_a_cost(spark, thousand, events, "published")[0] == thousand.expected("published", events)
    for file in Snapshot.open(thousand.workspace.table("user_features"), row.version("user_features")).files:
        Path(file).unlink()
    with pytest.raises(LearnSparkError, match=f"release {row.release_id} .* has expired: .* of user_features"):
        joined_at_a_cost(spark, thousand, events, "published")
