"""Histories: by hand, against a slow second implementation, and with a future planted that must not be seen."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings import Settings
from learn_spark.core.settings.histories import HistoriesSettings, LastEventsHistoriesSettings
from learn_spark.core.tables.runs import all_runs
from learn_spark.core.tables.workspace import Workspace
from learn_spark.core.times import from_micros
from learn_spark.data.histories.assemble import Size, assemble
from learn_spark.data.histories.events import indexed_events, usable_events

BASE = datetime(2024, 1, 1, tzinfo=UTC)
FEWER_USERS = "quality.rules.user_histories.volume.least=0.5"
Event = tuple[str, str, str, int, float]  # event_id, user_id, item_id, second, value


def histories(spark: SparkSession, events: list[Event], **settings: Any) -> dict[str, Any]:
    log = spark.createDataFrame(
        [(e, u, i, BASE + timedelta(seconds=s), v) for e, u, i, s, v in events],
        "event_id string, user_id string, item_id string, event_time timestamp, value double",
    )
    index = spark.createDataFrame([(f"i{n}", n) for n in range(1, 100)], "item_id string, item_index int")
    parsed = LastEventsHistoriesSettings(**{"max_length": 5, **settings})
    return {row.user_id: row for row in rows_of(log, index, parsed) if row.chunk == 0}


def rows_of(log: Any, index: Any, parsed: HistoriesSettings) -> list[Any]:
    rows: list[Any] = assemble(indexed_events(usable_events(log, parsed), index, parsed), parsed, Size(2, 1)).collect()
    return rows


def micros(second: int) -> int:
    return round((BASE + timedelta(seconds=second)).timestamp()) * 1_000_000


def test_by_hand(spark: SparkSession) -> None:
    rows = histories(
        spark,
        [
            ("e3", "u", "i30", 5, 1.0),
            ("e1", "u", "i10", 1, 1.0),
            # one second, two events: the event id decides
            ("b", "u", "i22", 3, 1.0),
            ("a", "u", "i21", 3, 1.0),
            ("x", "short", "i7", 1, 1.0),
            ("y", "short", "i8", 2, 1.0),
        ],
    )
    assert rows["u"].item_index == [10, 21, 22, 30, 0]
    assert rows["u"].event_time == [micros(1), micros(3), micros(3), micros(5), 0]
    assert (rows["u"].length, rows["u"].train_length, rows["u"].validation_length) == (4, 2, 3)
    assert rows["short"].item_index == [7, 8, 0, 0, 0]
    assert (rows["short"].length, rows["short"].train_length, rows["short"].validation_length) == (2, 2, 2)


def test_a_heavy_user_keeps_the_newest_events(spark: SparkSession) -> None:
    events = [(f"e{n:03}", "heavy", f"i{n}", n, 1.0) for n in range(1, 60)]
    random.Random(1).shuffle(events)
    row = histories(spark, [*events, ("z", "light", "i1", 1, 1.0)])["heavy"]
    assert row.item_index == [55, 56, 57, 58, 59]
    assert (row.length, row.n_events, row.train_length) == (5, 59, 3)


def test_against_a_slow_second_implementation(spark: SparkSession) -> None:
    chance = random.Random(3)
    events: list[Event] = [
        (
            f"e{n}",
            f"u{chance.randint(1, 12)}",
            f"i{chance.randint(1, 99)}",
            chance.randint(0, 20),
            chance.choice([1.0, 4.0]),
        )
        for n in range(300)
    ]
    rows = histories(spark, events, max_length=9, min_value=4.0)
    for user in {e[1] for e in events}:
        usable = sorted((e for e in events if e[1] == user and e[4] >= 4.0), key=lambda e: (e[3], e[0]))
        kept = usable[-9:]
        assert rows[user].item_index == [int(e[2][1:]) for e in kept] + [0] * (9 - len(kept))
        assert rows[user].n_events == len(usable)


def test_the_order_of_arrival_decides_nothing(spark: SparkSession) -> None:
    events = [(f"e{n}", f"u{n % 3}", f"i{n % 50 + 1}", n % 4, 1.0) for n in range(40)]
    forward, backward = histories(spark, events), histories(spark, events[::-1])
    assert forward == backward


def test_a_planted_future_changes_nothing(spark: SparkSession) -> None:
    past: list[Event] = [(f"e{n}", f"u{n % 2}", f"i{n + 1}", n, 1.0) for n in range(8)]
    cut = (BASE + timedelta(seconds=100)).isoformat()
    future: list[Event] = [
        ("f1", "u0", "i90", 100, 1.0),
        ("f2", "u1", "i91", 5000, 1.0),
        ("f3", "new", "i92", 101, 1.0),
    ]
    clean = histories(spark, past, as_of=cut)
    assert histories(spark, past + future, as_of=cut) == clean
    assert histories(spark, past + future) != clean
    just_before = histories(spark, [*past, ("g", "u0", "i93", 99, 1.0)], as_of=cut)
    assert just_before["u0"].item_index[4] == 93


def test_the_stage_counts_every_event(
    spark: SparkSession,
    small_settings: Callable[..., Settings],
    run: Callable[..., Any],
    prepared: Callable[..., None],
) -> None:
    settings = small_settings("histories.max_length=8", "objective.history=8")
    prepared("ingest")
    (outcome,) = run(settings, "histories")
    (ingest, _) = all_runs(Workspace.open(settings.workspace))
    assert outcome.run.counts["rows_in"] == ingest.counts["interactions"]
    table = spark.read.format("delta").load(f"{settings.workspace}/tables/user_histories")
    assert table.agg(F.sum("n_events")).first()[0] == outcome.run.counts["rows_in"]  # type: ignore[index]
    assert {len(row.item_index) for row in table.collect()} == {8}
    assert outcome.run.counts["users_capped"] == table.where("n_events > 8").count() > 0
    # Training users whose events are all from the split on have no row; nothing of them is read.
    late = spark.read.format("delta").load(f"{settings.workspace}/tables/interactions")
    cut = late.selectExpr("percentile_approx(unix_micros(event_time), 0.5)").collect()[0][0]
    time = from_micros(cut).isoformat()
    split = f"{{max_length: 8, protocol: time_split, split_time: '{time}', targets: 4, train_after_split: false}}"
    (outcome,) = run(small_settings(f"histories={split}", "objective.history=4", FEWER_USERS), "histories")
    used = outcome.run.counts["rows_in"]
    assert 0 < used < ingest.counts["interactions"]
    rows = spark.read.format("delta").load(f"{settings.workspace}/tables/user_histories")
    assert rows.agg(F.sum("n_events")).collect()[0][0] == used
    users = {row.user_id for row in rows.collect()}
    firsts = late.groupBy("user_id").agg(F.min(F.unix_micros("event_time")).alias("first")).collect()
    assert {row.user_id for row in firsts if row.first < cut} <= users
    assert {row.user_id for row in firsts} - users
    with pytest.raises(LearnSparkError, match="no event is left"):
        run(small_settings("histories.as_of=1991-01-01"), "histories")
