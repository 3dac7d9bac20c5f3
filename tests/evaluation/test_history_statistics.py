"""Statistics of evaluation in parts: the same as of the whole table, whatever the parts; counts beyond int64."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.splits.ranked import ranked_rows, ranked_users
from learn_spark.data.splits.split import SplitName, split_histories, trained_counts, training_events
from learn_spark.data.splits.training_view import TrainingView
from learn_spark.evaluation import inputs
from learn_spark.evaluation.baselines.markov import PairCounts, markov, markov_of_pairs
from learn_spark.evaluation.statistics import Statistics
from learn_spark.model.towers.vectors import unit_rows
from tests.report.planted import history_row, plant

NOTHING = np.zeros(0, np.int64)
N = 12


def _histories(users: int) -> list[dict[str, object]]:
    """Users with 1 to 8 events; every third one has two older chunks."""
    chance = np.random.default_rng(0)
    rows = []
    for user in range(users):
        older = 2 if user % 3 == 0 else 0
        for chunk in range(older, -1, -1):
            size = 8 if chunk else chance.integers(1, 9)
            items = chance.integers(1, N + 1, size=size).tolist()
            rows.append(history_row(f"u{user:02}", items, chunk=chunk, first_day=10 * (older - chunk)))
    return rows


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Two files of histories, users' chunks in both."""
    workspace, rows = Workspace.open(str(tmp_path_factory.mktemp("statistics"))), _histories(40)
    for part in (rows[1::2], rows[::2]):
        plant(workspace, "user_histories", part)
    return Snapshot.open(workspace.table("user_histories"))


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(st.lists(st.lists(st.integers(0, 6), max_size=8), max_size=4), max_size=12),
)
def test_pairs_of_parts_are_those_of_the_whole(parts: list[list[list[int]]]) -> None:
    pairs = PairCounts(7)
    for part in parts:
        values = np.array([item for row in part for item in row], dtype=np.int32)
        pairs.add(values, np.cumsum([0, *(len(row) for row in part)]))
    keys, counts = pairs.merged()
    expected: dict[int, int] = {}
    for row in (row for part in parts for row in part):
        for before, after in pairwise(row):
            expected[7 * before + after] = expected.get(7 * before + after, 0) + 1
    assert dict(zip(keys.tolist(), counts.tolist(), strict=True)) == expected
    assert keys.tolist() == sorted(expected)


def test_few_runs_are_kept_at_once() -> None:
    pairs, most = PairCounts(1000), 0
    chance = np.random.default_rng(1)
    for _ in range(200):
        pairs.add(chance.integers(0, 1000, 100), np.array([0, 100]))
        most = max(most, len(pairs._runs))
    assert most <= 9  # about log2(200)
    assert pairs.merged()[1].sum() == 200 * 99


@pytest.mark.parametrize("rows", [1, 5, 1000])
def test_statistics_of_parts_are_those_of_the_whole(table: Snapshot, rows: int) -> None:
    whole = table.to_arrow()
    columns = ["user_id", "chunk", "item_index", "train_end", "train_length"]
    parts = (pa.Table.from_batches([batch]) for batch in table.batches(columns, rows))
    statistics = Statistics.of(parts, N)
    values, offsets = training_events(whole)
    assert statistics.counts.tolist() == np.bincount(values, minlength=N).tolist()
    assert statistics.trained.tolist() == trained_counts(whole, N).tolist()
    contexts, targets = np.arange(N), np.arange(N)[::-1].copy()
    scores, of_all = markov_of_pairs(*statistics.pairs.merged(), statistics.counts), markov(values, offsets, N)
    assert scores.extra.tolist() == of_all.extra.tolist()
    ranks = [one.ranks(contexts, targets, [NOTHING] * N).tolist() for one in (scores, of_all)]
    assert ranks[0] == ranks[1]


def rows_of(table: Snapshot, split: SplitName, users: int | None) -> pa.Table:
    counted, sample = ranked_users(table, split, users)
    rows = ranked_rows(table, split, sample)
    assert counted == len(split_histories(rows, split).user_ids)
    return rows


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_sample_keeps_all_chunks_of_its_users(table: Snapshot, split: SplitName) -> None:
    every = split_histories(table.to_arrow(), split)
    rows = rows_of(table, split, 9)
    some = split_histories(rows, split)
    assert len(some.user_ids) == 9
    places = [every.user_ids.index(user) for user in some.user_ids]
    assert [seen.tolist() for seen in some.seen] == [every.seen[place].tolist() for place in places]
    assert some.every_target.positions.tolist() == every.take(np.array(places)).every_target.positions.tolist()
    assert set(rows["user_id"].to_pylist()) >= set(some.user_ids)
    more = split_histories(rows_of(table, split, 15), split)
    assert set(some.user_ids) < set(more.user_ids)
    most = split_histories(rows_of(table, split, 1000), split)
    assert most.user_ids == split_histories(rows_of(table, split, None), split).user_ids == every.user_ids


def test_counts_whose_products_exceed_int64_keep_order_and_ties() -> None:
    # After item 0: item 1 came 4e9 times, items 2 and 3 came 3e9 times, item 3 and item 4 are equally popular.
    popularity = np.array([10**10, 5 * 10**9, 6 * 10**9, 7 * 10**9, 7 * 10**9], dtype=np.int64)
    scores = markov_of_pairs(np.array([1, 2, 3]), np.array([4 * 10**9, 3 * 10**9, 3 * 10**9]), popularity)
    targets = np.arange(5)
    assert scores.ranks(np.zeros(5, np.int64), targets, [NOTHING] * 5).tolist() == [4.0, 1.0, 3.0, 2.0, 5.0]
    # After item 1, without pairs, popularity decides.
    assert scores.ranks(np.ones(5, np.int64), targets, [NOTHING] * 5).tolist() == [1.0, 5.0, 4.0, 2.5, 2.5]
    assert scores.top_k(np.array([0]), 5, [NOTHING]).tolist() == [[1, 3, 2, 0, 4]]


def test_neither_part_nor_table_is_read_whole(table: Snapshot) -> None:
    sizes = []
    original = Snapshot.batches

    def recorded(self: Snapshot, columns: list[str], rows: int):  # type: ignore[no-untyped-def]
        for batch in original(self, columns, rows):
            sizes.append(batch.num_rows)
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Snapshot, "batches", recorded)
        patch.setattr(Snapshot, "to_arrow", None)
        patch.setattr("learn_spark.data.splits.ranked.PART_ROWS", 3)
        _, sample = ranked_users(table, "test", 4)
        rows = ranked_rows(table, "test", sample)
    assert max(sizes) == 3
    assert sum(sizes) == 2 * table.rows  # once to choose the users, once to read them
    assert len(set(rows.filter(pa.compute.equal(rows["chunk"], 0))["user_id"].to_pylist())) >= 4


def test_pairs_of_a_sample_and_counts_of_all(table: Snapshot) -> None:
    view = TrainingView(table)
    sample = view.sample(10)
    parts = list(view.parts())
    statistics, whole = Statistics.of(parts, N, sample), Statistics.of(parts, N)
    assert np.array_equal(statistics.counts, whole.counts)
    assert np.array_equal(statistics.trained, whole.trained)
    keys, counts = statistics.pairs.merged()
    pairs: Counter[int] = Counter()
    for part in parts:
        for row in part.to_pylist():
            events = row["item_index"][: row["train_length"]] if row["chunk"] == 0 else row["item_index"]
            if sample.contains([row["user_id"]])[0]:
                items = [item - 1 for item in events if item]
                pairs.update(N * before + after for before, after in pairwise(items))
    assert dict(zip(keys.tolist(), counts.tolist(), strict=True)) == pairs
    assert 0 < counts.sum() < whole.pairs.merged()[1].sum()
    assert view.sample(40).highest is None
    assert view.sample(None).highest is None


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_unit_content_in_a_file_is_that_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    monkeypatch.setattr(inputs, "UNIT_ROWS", 7)
    matrix = np.random.default_rng(0).normal(size=(23, 5)).astype(kind)
    matrix[3] = 0
    unit = inputs.unit_content(matrix, tmp_path)
    assert isinstance(unit, np.memmap)
    assert unit.dtype == kind
    assert np.array_equal(unit, unit_rows(matrix))
    assert np.allclose(np.linalg.norm(unit.astype(np.float64), axis=1), np.arange(23) != 3, atol=2e-3)
