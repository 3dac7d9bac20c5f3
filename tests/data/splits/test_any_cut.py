"""Any histories, cut anywhere: training reads what a slow twin reads, and no later event changes a bit of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from learn_spark.core.tables.contracts import contract
from learn_spark.data.splits.counts import HistoryCounts
from learn_spark.data.splits.split import event_counts, split_histories, trained_counts, training_events, without_test
from tests.report.planted import history_row

ITEMS, WIDTH = 9, 6
Row = dict[str, Any]


@st.composite
def rows_of_users(draw: st.DrawFn) -> list[Row]:
    """Rows of users: older chunks, which are training events, and a newest one that is cut for validation and test."""
    rows = []
    for user in range(draw(st.integers(1, 4))):
        chunks = draw(st.integers(1, 3))
        for chunk in range(chunks):
            items = draw(st.lists(st.integers(1, ITEMS), min_size=1 if chunk == 0 else WIDTH, max_size=WIDTH))
            row = history_row(f"u{user}", items, chunk=chunk, first_day=WIDTH * (chunks - chunk), width=WIDTH)
            if chunk == 0:
                until = draw(st.integers(0, len(items)))
                row |= {"validation_length": until, "train_length": draw(st.integers(0, until))}
            rows.append(row | {"train_end": draw(st.sampled_from([0, 0, 1, 2]))})
    return draw(st.permutations(rows))


def table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=contract("user_histories").arrow_schema())


def with_another_future(rows: list[Row], change: int) -> list[Row]:
    """Other items at other times from the end of validation on."""
    changed = []
    for row in rows:
        kept = row["validation_length"]
        items = [*row["item_index"][:kept], *((i + change) % ITEMS + 1 for i in row["item_index"][kept:])]
        times = [*row["event_time"][:kept], *(t + change * 3_600_000_000 for t in row["event_time"][kept:])]
        inside = [place < row["length"] for place in range(WIDTH)]
        changed.append(
            row
            | {
                "item_index": [item if there else 0 for item, there in zip(items, inside, strict=True)],
                "event_time": [time if there else 0 for time, there in zip(times, inside, strict=True)],
            }
        )
    return changed


def slow_events(rows: list[Row]) -> list[int]:
    """The training events, user after user in the order of the table's chunks from the oldest one."""
    events = []
    for row in rows:
        length = row["train_length"] if row["train_end"] == 0 else min(row["train_end"], row["train_length"])
        events += [item - 1 for item in row["item_index"][:length]]
    return events


@settings(max_examples=60, deadline=None, derandomize=True)
@given(rows_of_users(), st.integers(1, ITEMS - 1), st.integers(0, 12))
def test_training_reads_what_a_slow_twin_reads_and_nothing_later(rows: list[Row], change: int, cut: int) -> None:
    here, there = table(rows), table(with_another_future(rows, change))
    assert without_test(here).equals(without_test(there))
    counted = Counter(slow_events(rows))
    for histories in (here, there, without_test(here)):
        assert Counter(training_events(histories)[0].tolist()) == counted
        assert event_counts(histories, ITEMS).tolist() == [counted[item] for item in range(ITEMS)]
        np.testing.assert_array_equal(trained_counts(histories, ITEMS), trained_counts(here, ITEMS))
    first, second = (split_histories(histories, "validation") for histories in (here, there))
    assert first.user_ids == second.user_ids
    np.testing.assert_array_equal(first.targets, second.targets)
    for mine, other in zip(astuple(first.every_target), astuple(second.every_target), strict=True):
        np.testing.assert_array_equal(mine, other)
    for user, length in enumerate(first.lengths):
        np.testing.assert_array_equal(first.items[user, :length], second.items[user, :length])
        np.testing.assert_array_equal(first.times[user, :length], second.times[user, :length])
        np.testing.assert_array_equal(first.seen[user], second.seen[user])
    parts = [part for part in (here[:cut], here[cut:]) if part.num_rows]
    whole, joined = HistoryCounts.of([here], ITEMS), HistoryCounts.of(parts, ITEMS)
    for mine, other in zip(astuple(whole), astuple(joined), strict=True):
        np.testing.assert_array_equal(mine, other)
