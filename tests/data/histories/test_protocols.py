"""Protocols: each cut by hand; long users in chunks; the paper's cut at a time; event types and weights."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import TypeAdapter
from pyspark.sql import SparkSession

from learn_spark.core.errors import SettingsError
from learn_spark.core.settings import load_settings
from learn_spark.core.settings.histories import HistoriesSettings
from learn_spark.core.tables.contracts import contract
from learn_spark.data.histories.assemble import Size, assemble
from learn_spark.data.histories.events import indexed_events, usable_events
from learn_spark.data.splits.split import split_histories, trained_counts, training_events

BASE = datetime(2024, 1, 1, tzinfo=UTC)
HISTORIES: TypeAdapter[HistoriesSettings] = TypeAdapter(HistoriesSettings)
Event = tuple[str, str, int, str]  # user_id, item_id, second, event_type


def rows_of(spark: SparkSession, events: list[Event], **settings: Any) -> list[Any]:
    log = spark.createDataFrame(
        [(f"e{n:04}", u, i, BASE + timedelta(seconds=s), kind, 1.0) for n, (u, i, s, kind) in enumerate(events)],
        "event_id string, user_id string, item_id string, event_time timestamp, event_type string, value double",
    )
    index = spark.createDataFrame([(f"i{n}", n) for n in range(1, 200)], "item_id string, item_index int")
    parsed = HISTORIES.validate_python({"protocol": "leave_last_out", **settings})
    rows = assemble(indexed_events(usable_events(log, parsed), index, parsed), parsed, Size(2, 1)).collect()
    return sorted(rows, key=lambda row: (row.user_id, row.chunk))


def line(user: str, items: range, kind: str = "buy") -> list[Event]:
    return [(user, f"i{n}", n, kind) for n in items]


def kept(row: Any) -> list[int]:
    return list(row.item_index[: row.length])


def test_long_users_in_chunks_lose_nothing(spark: SparkSession) -> None:
    """14 events, rows of 6: chunk 0 has 4 training events and 2 targets, so chunks above it have 4 each."""
    rows = rows_of(spark, [*line("u", range(1, 15)), *line("v", range(1, 4))], max_length=6, long_users="chunks")
    assert [(r.user_id, r.chunk, kept(r)) for r in rows] == [
        ("u", 0, [9, 10, 11, 12, 13, 14]),
        ("u", 1, [5, 6, 7, 8]),
        ("u", 2, [1, 2, 3, 4]),
        ("v", 0, [1, 2, 3]),
    ]
    assert [(r.train_length, r.validation_length, r.length) for r in rows] == [
        (4, 5, 6),
        (4, 4, 4),
        (4, 4, 4),
        (1, 2, 3),
    ]
    assert [r.n_events for r in rows] == [14, 14, 14, 3]


def books_events() -> list[Event]:
    """Users u0..u4 share the items i1..i5. i9 has four events only; w has five events, but one of them of i9."""
    common = [event for n in range(5) for event in line(f"u{n}", range(1, 6))]
    rare = [(f"u{n}", "i9", 90 + n, "buy") for n in range(3)]
    few = [*line("w", range(1, 5)), ("w", "i9", 99, "buy")]
    return [*common, *rare, *few, *line("x", range(1, 3))]


def test_the_books_protocols_core_is_counted_once(spark: SparkSession) -> None:
    """x has 2 events; i9 has 4; w has 5 raw events and 4 when i9 is gone, so that w goes at the end."""
    rows = rows_of(spark, books_events(), protocol="books_meta", max_length=52)
    assert [r.user_id for r in rows] == [f"u{n}" for n in range(5)]
    assert all(kept(r) == [1, 2, 3, 4, 5] and r.n_events == 5 for r in rows)
    assert {(r.train_length, r.validation_length, r.length) for r in rows} == {(4, 4, 5)}
    hllm = rows_of(spark, books_events(), protocol="books_hllm", max_length=53, long_users="chunks")
    assert {(r.train_length, r.validation_length, r.length) for r in hllm} == {(3, 4, 5)}


def test_all_of_the_last_day_is_one_target_set(spark: SparkSession) -> None:
    """Days begin at midnight UTC: 86,399 s and 86,400 s after BASE are two of them."""
    day = 86_400
    events = [
        *[
            ("three", f"i{n}", s, "buy")
            for n, s in enumerate((5, 6, day - 1, day, 2 * day - 1, 9 * day, 9 * day + 7), 1)
        ],
        *[("two", f"i{n}", s, "buy") for n, s in enumerate((3 * day, 3 * day, 4 * day), 1)],
        *[("one", f"i{n}", 7 * day + n, "buy") for n in (1, 2, 3)],
        *[("heavy", f"i{n}", 7 * day + n, "buy") for n in range(1, 12)],
        ("heavy", "i99", 5, "buy"),
    ]
    rows = {row.user_id: row for row in rows_of(spark, events, protocol="last_day", max_length=8)}
    lengths = {u: (r.train_end, r.train_length, r.validation_length, r.length) for u, r in rows.items()}
    assert lengths == {
        "three": (0, 3, 5, 7),
        "two": (0, 2, 2, 3),  # no day is left for validation
        "one": (0, 3, 3, 3),
        "heavy": (0, 8, 8, 8),  # the newest 8 events are of one day
    }
    table = pa.Table.from_pylist([r.asDict() for r in rows.values()], schema=contract("user_histories").arrow_schema())
    test, validation = split_histories(table, "test"), split_histories(table, "validation")
    assert (test.user_ids, validation.user_ids) == (["three", "two"], ["three"])
    assert (test.every_target.positions + 1).tolist() == [6, 7, 3]
    assert (validation.every_target.positions + 1).tolist() == [4, 5]
    assert [(s + 1).tolist() for s in test.seen] == [[1, 2, 3, 4, 5], [1, 2]]


def test_the_cut_at_a_time(spark: SparkSession) -> None:
    cut = (BASE + timedelta(seconds=100)).isoformat()
    events = [event for n in range(60) for event in line(f"u{n:02}", range(96, 105))]
    events += [("past", "i1", 1, "buy"), ("future", "i2", 150, "buy")]
    rows = rows_of(spark, events, protocol="time_split", split_time=cut, max_length=5, targets=2, held_out=0.2)
    by_user = {r.user_id: r for r in rows}
    roles = {"training": 0, "validation": 0, "test": 0}
    for user, row in by_user.items():
        if user in ("past", "future"):
            continue
        # the three newest before T, the two oldest from T on
        assert kept(row) == [97, 98, 99, 100, 101]
        lengths = (row.train_end, row.train_length, row.validation_length, row.length)
        role = {(3, 5, 5, 5): "training", (5, 3, 5, 5): "validation", (5, 3, 3, 5): "test"}[lengths]
        roles[role] += 1
        assert row.n_events == 9
    assert roles["training"] > 24
    assert min(roles.values()) >= 3
    # Nothing to contrast for these two: no training sample, no target
    assert (by_user["past"].train_length, by_user["past"].train_end) == (1, 1)
    assert (by_user["future"].train_length, by_user["future"].train_end) == (0, 1)
    again = rows_of(spark, events[::-1], protocol="time_split", split_time=cut, max_length=5, targets=2, held_out=0.2)
    assert {r.user_id: r.validation_length for r in again} == {r.user_id: r.validation_length for r in rows}


def test_training_on_what_lies_before_the_cut_alone(spark: SparkSession) -> None:
    cut = (BASE + timedelta(seconds=100)).isoformat()
    events = [event for n in range(60) for event in line(f"u{n:02}", range(96, 105))] + line("new", range(101, 104))
    settings: dict[str, Any] = {
        "protocol": "time_split",
        "split_time": cut,
        "max_length": 5,
        "targets": 2,
        "held_out": 0.2,
    }
    rows = rows_of(spark, events, **settings, train_after_split=False)
    roles = {"training": 0, "validation": 0, "test": 0}
    # A training user with nothing before the cut has no row.
    assert {r.user_id for r in rows} == {f"u{n:02}" for n in range(60)}
    for row in rows:
        lengths = (row.train_end, row.train_length, row.validation_length, row.length)
        role = {(0, 3, 3, 3): "training", (0, 3, 5, 5): "validation", (0, 3, 3, 5): "test"}[lengths]
        roles[role] += 1
        assert kept(row) == [97, 98, 99] + [100, 101] * (role != "training")
    assert min(roles.values()) >= 3
    table = pa.Table.from_pylist([r.asDict() for r in rows], schema=contract("user_histories").arrow_schema())
    positions, _ = training_events(table)
    assert set((positions + 1).tolist()) == {97, 98, 99}
    assert trained_counts(table, 200).nonzero()[0].tolist() == [96, 97, 98]
    # The same users are held out as where training users have targets behind the cut.
    both = {r.user_id: r.validation_length < r.length for r in rows_of(spark, events, **settings)}
    assert not both.pop("new")
    assert {r.user_id: r.validation_length < r.length for r in rows} == both


def test_uniform_sampling_draws_from_both_sides_of_the_cut(spark: SparkSession) -> None:
    cut = (BASE + timedelta(seconds=100)).isoformat()
    events = [event for n in range(80) for event in line(f"u{n:02}", range(60, 140))]
    settings: dict[str, Any] = {
        "protocol": "time_split",
        "split_time": cut,
        "max_length": 6,
        "targets": 2,
        "sample": "uniform",
    }
    rows = rows_of(spark, events, **settings)
    for row in rows:
        items = kept(row)
        assert items == sorted(items)
        assert len(set(items)) == 6
        assert [n < 100 for n in items] == [True] * 4 + [False] * 2
    history = np.concatenate([kept(r)[:4] for r in rows])
    # 320 draws from 60..99: their mean is 79.5 with a standard error of 0.65
    assert abs(history.mean() - 79.5) < 3
    assert [kept(r) for r in rows_of(spark, events, **settings)] == [kept(r) for r in rows]


def test_planted_future_events_reach_no_statistic_input_or_weight(spark: SparkSession) -> None:
    """Events at and after T change nothing that is known before T: history, statistics, masks, weights."""
    cut = (BASE + timedelta(seconds=100)).isoformat()
    past = [event for n in range(40) for event in line(f"u{n:02}", range(90 + n % 5, 100), "click" if n % 2 else "buy")]
    future = [(f"u{n:02}", f"i{150 + n % 7}", 100 + n, "buy") for n in range(40)] + line("new", range(101, 109))
    settings: dict[str, Any] = {
        "protocol": "time_split",
        "split_time": cut,
        "max_length": 12,
        "targets": 4,
        "held_out": 0.3,
    }
    settings["weights"] = {"click": 0.5}

    def before_split(events: list[Event]) -> tuple[Any, ...]:
        rows = rows_of(spark, events, **settings)
        table = pa.Table.from_pylist([r.asDict() for r in rows], schema=contract("user_histories").arrow_schema())
        values, _ = training_events(table)
        # What lies before T, whatever the row is cut into
        end = {r.user_id: sum(0 < t < round((BASE.timestamp() + 100) * 1e6) for t in r.event_time) for r in rows}
        inputs = {r.user_id: (r.item_index[: end[r.user_id]], r.weight[: end[r.user_id]]) for r in rows}
        seen = {u: s.tolist() for c in ("validation", "test") for u, s in _seen(table, c)}
        return np.bincount(values, minlength=200).tolist(), {u: i for u, i in inputs.items() if i[0]}, seen

    with_future, other = (
        before_split(past + future),
        before_split(past + [(u, "i199", s + 5, k) for u, _, s, k in future]),
    )
    assert with_future[:2] == other[:2] == before_split(past)[:2]
    assert with_future[2] == other[2] != {}


def _seen(table: pa.Table, cut: Any) -> list[tuple[str, np.ndarray]]:
    split = split_histories(table, cut)
    return list(zip(split.user_ids, split.seen, strict=True))


def test_event_types_filter_and_weigh(spark: SparkSession) -> None:
    events = [*line("u", range(1, 4), "click"), *line("u", range(4, 6), "buy"), *line("u", range(6, 7), "view")]
    (row,) = rows_of(spark, events, max_length=8, event_types=["click", "buy"], weights={"click": 0.25})
    assert (kept(row), row.n_events) == ([1, 2, 3, 4, 5], 5)
    assert row.weight == [0.25, 0.25, 0.25, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"protocol": "time_split"}, "split_time: must be given"),
        ({"split_time": "2024-01-01"}, "split_time: a setting of histories.protocol time_split"),
        ({"train_after_split": False}, "train_after_split: a setting of histories.protocol time_split"),
        (
            {"protocol": "time_split", "split_time": "2024-01-01", "max_length": 40, "targets": 40},
            "must be fewer than max_length",
        ),
        ({"protocol": "books_meta", "long_users": "chunks"}, "not for books_meta"),
        ({"protocol": "books_hllm"}, "set long_users: chunks"),
        ({"event_types": ["buy"], "weights": {"click": 0.5}}, "weights has the types click"),
        ({"as_of": "soon"}, "not an ISO time"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        load_settings("learn", [f"histories={json.dumps(settings)}"])
