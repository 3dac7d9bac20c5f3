"""Slices: every band at its edges by hand, and metrics of a slice computed from its users and targets only."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import bootstrap

from learn_spark.data.splits.split import Split, split_histories, target_times, trained_counts, training_events
from learn_spark.evaluation import bands
from learn_spark.evaluation.slices import DIMENSIONS, ItemSlices, slices, target_labels
from learn_spark.evaluation.sums import SliceMetric, SplitSums
from learn_spark.model.scoring.metrics import ndcg, summarise

DAY = 86_400_000_000


def test_bands_at_their_edges() -> None:
    counts = np.array([0, 1, 4, 5, 19, 20, 99, 100, 10**6])
    assert bands.popularity_band(counts).tolist() == [
        "unseen", *["1-4"] * 2, *["5-19"] * 2, *["20-99"] * 2, *["100+"] * 2
    ]  # fmt: skip
    assert bands.history_band(np.array([1, 4, 5, 9, 10, 19, 20, 49, 50])).tolist() == [
        *["1-4"] * 2, *["5-9"] * 2, *["10-19"] * 2, *["20-49"] * 2, "50+"
    ]  # fmt: skip
    days = np.array([0, 1, 6, 7, 29, 30, 89, 90, 364, 365]) * DAY
    actual = bands.recency_band(np.full(10, 5 * DAY), 5 * DAY + days).tolist()
    assert actual == ["under 1", *["1-6"] * 2, *["7-29"] * 2, *["30-89"] * 2, *["90-364"] * 2, "365+"]
    assert bands.recency_band(np.array([0]), np.array([DAY - 1])).tolist() == ["under 1"]


def test_head_and_tail_by_the_mass_of_events() -> None:
    # 100 events. 40 and 20 begin below one half of them; 15 and 5, 5, 5 begin at 60, 75; 4 and below at 90.
    counts = np.array([5, 40, 4, 15, 5, 20, 5, 3, 3, 0])
    expected = ["mid", "head", "tail", "mid", "mid", "head", "mid", "tail", "tail", "tail"]
    assert bands.mass_band(counts).tolist() == expected
    shuffled = np.random.default_rng(0).permutation(10)
    assert bands.mass_band(counts[shuffled]).tolist() == np.array(expected)[shuffled].tolist()
    assert bands.mass_band(np.full(4, 7)).tolist() == ["head"] * 4
    assert bands.mass_band(np.zeros(3, dtype=int)).tolist() == ["tail"] * 3


def quarters(times: np.ndarray) -> np.ndarray:
    """The names of the quarters of targets at ``times``."""
    return bands.Quarters.of(Counter((times // DAY).tolist())).labels(times)


def test_quarters_keep_equal_days_together() -> None:
    days = np.array([10, 3, 3, 3, 3, 20, 21, 1])
    # In order: 1, 3 | 3, 3 | 3, 10 | 20, 21. All threes belong where the last of them begins.
    assert quarters(days * DAY).tolist() == [
        "1970-01-04..1970-01-11", *["1970-01-04..1970-01-11"] * 4, *["1970-01-21..1970-01-22"] * 2,
        "1970-01-02..1970-01-02",
    ]  # fmt: skip
    names, sizes = np.unique(quarters(np.arange(400) * DAY), return_counts=True)
    assert (len(names), sizes.tolist()) == (4, [100] * 4)
    assert quarters(np.zeros(0, dtype=np.int64)).tolist() == []


def test_the_same_day_is_the_calendars() -> None:
    before = np.array([0, DAY - 1, DAY - 1, -1])
    target = np.array([DAY - 1, DAY - 1, DAY, 0])
    assert bands.same_day(before, target).tolist() == ["yes", "yes", "no", "no"]


def _history(
    user: str, items: list[int], days: list[int], train: int, validation: int, split: int
) -> dict[str, object]:
    padding = [0] * (8 - len(items))
    return {
        "user_id": user,
        "chunk": 0,
        "item_index": items + padding,
        "event_time": [day * DAY for day in days] + padding,
        "length": len(items),
        "train_end": split,
        "train_length": train,
        "validation_length": validation,
    }


@pytest.fixture
def histories() -> pa.Table:
    """Split on day 100. "t" trains on items 1, 2 and, after the split, 5; "h" and "k" are held out."""
    rows = [
        _history("t", [1, 2, 5], [10, 20, 110], 3, 3, 2),
        _history("h", [1, 3, 5, 6], [30, 95, 101, 101], 2, 2, 4),
        _history("k", [2, 1], [99, 130], 1, 1, 2),
    ]
    kinds = {"item_index": pa.list_(pa.int32()), "event_time": pa.list_(pa.int64()), "user_id": pa.string()}
    return pa.Table.from_pylist(rows, pa.schema([(name, kinds.get(name, pa.int32())) for name in rows[0]]))


def test_labels_by_hand(histories: pa.Table) -> None:
    split = split_histories(histories, "test")
    trained = trained_counts(histories, 6)
    before_split = np.bincount(training_events(histories)[0], minlength=6)
    last = split.times[np.arange(len(split.lengths)), split.lengths - 1]
    days = Counter((target_times(histories, "test") // DAY).tolist())
    assert days == {101: 2, 130: 1}
    labels = target_labels(
        split.every_target, split.lengths, last, ItemSlices.of(trained, before_split), bands.Quarters.of(days)
    )
    assert list(labels) == list(DIMENSIONS)
    assert split.every_target.positions.tolist() == [4, 5, 0]  # h: items 5 and 6; k: item 1
    # Item 5 was a training target, but had no event before the split; item 6 is new.
    assert labels["popularity"].tolist() == ["1-4", "unseen", "1-4"]
    assert labels["cold"].tolist() == ["no event before the split"] * 2 + ["event before the split"]
    assert labels["mass"].tolist() == ["head", "tail", "head"]
    assert labels["history"].tolist() == ["1-4"] * 3
    assert labels["recency"].tolist() == ["1-6", "1-6", "30-89"]
    assert labels["same_day"].tolist() == ["no", "yes", "no"]
    assert sorted(labels["time"].tolist())[0].startswith("1970-04-12")
    for dimension, values in labels.items():
        assert not DIMENSIONS[dimension] or set(values.tolist()) <= set(DIMENSIONS[dimension])


def test_slices_have_the_users_with_a_target_in_them(histories: pa.Table) -> None:
    split: Split = split_histories(histories, "test")
    labels = {"mass": np.array(["head", "tail", "head"]), "time": np.array(["b", "b", "a"])}
    actual = {(s.dimension, s.name): s for s in slices(labels, split.every_target.owners)}
    assert list(actual) == [("all", "all"), ("mass", "head"), ("mass", "tail"), ("time", "a"), ("time", "b")]
    head, tail = actual["mass", "head"], actual["mass", "tail"]
    assert (head.users.tolist(), head.offsets.tolist()) == ([0, 1], [0, 1, 2])
    assert (tail.users.tolist(), tail.offsets.tolist(), tail.mask.tolist()) == ([0], [0, 1], [False, True, False])
    assert actual["time", "b"].offsets.tolist() == [0, 2]


def metrics_of(users: list[np.ndarray], world: dict[str, Any]) -> list[SliceMetric]:
    """The metrics of a split whose ``users`` are added part by part, and merged."""
    merged: SplitSums | None = None
    for part in users:
        inside = np.isin(world["owners"], part)
        sums = SplitSums([5, 20], samples=200, seed=1)
        sums.add(
            part.astype(np.uint64) * np.uint64(7919),
            world["items"][inside],
            np.searchsorted(part, world["owners"][inside]),
            {name: values[inside] for name, values in world["labels"].items()},
            {name: values[inside] for name, values in world["ranks"].items()},
        )
        if merged is None:
            merged = sums
        else:
            merged.merge(sums)
    assert merged is not None
    return list(merged.metrics())


@pytest.fixture(scope="module")
def ranked() -> dict[str, Any]:
    """60 users with 1 to 4 targets, ranked by two methods."""
    generator = np.random.default_rng(2)
    counts = generator.integers(1, 5, size=60)
    owners, items = np.repeat(np.arange(60), counts), generator.integers(0, 30, size=counts.sum())
    labels = {"mass": generator.choice(["head", "mid", "tail"], size=len(owners), p=[0.6, 0.3, 0.1])}
    ranks = {"one": generator.integers(1, 40, len(owners)) + 0.0, "two": generator.integers(1, 20, len(owners)) + 0.5}
    return {"counts": counts, "owners": owners, "items": items, "labels": labels, "ranks": ranks}


def test_metrics_of_a_slice_are_those_of_its_users_and_targets_only(ranked: dict[str, Any]) -> None:
    owners, items, ranks = ranked["owners"], ranked["items"], ranked["ranks"]
    actual = metrics_of([np.arange(60)], ranked)
    of_split = {(m.method, m.metric): m.value for m in actual if m.dimension == "all"}
    offsets = np.cumsum([0, *ranked["counts"]])
    for method, values in ranks.items():
        for metric, value in summarise(values, [5, 20], offsets).items():
            assert of_split[method, metric] == pytest.approx(value, abs=1e-14)
    for name in ("head", "mid", "tail"):
        inside = ranked["labels"]["mass"] == name
        users = np.unique(owners[inside])
        lengths = [int((owners[inside] == user).sum()) for user in users]
        for method, values in ranks.items():
            expected = summarise(values[inside], [5], np.cumsum([0, *lengths]))
            mine = {m.metric: m for m in actual if (m.slice, m.method) == (name, method)}
            assert set(mine) == {"HR@5", "NDCG@5"}
            for metric, row in mine.items():
                assert row.value == pytest.approx(expected[metric], abs=1e-14)
                assert 0 <= row.low <= row.value <= row.high <= 1
                assert row.low < row.high
                assert (row.users, row.items) == (len(users), len(set(items[inside].tolist())))


def test_sums_have_the_same_digits_in_whatever_parts_they_were_made(ranked: dict[str, Any]) -> None:
    whole = metrics_of([np.arange(60)], ranked)
    shuffled = np.random.default_rng(3).permutation(60)
    parts = [np.sort(part) for part in np.split(shuffled, [1, 8, 9, 31, 50])]
    assert metrics_of(parts, ranked) == whole
    assert metrics_of(parts[::-1], ranked) == whole
    # The first part has few slices; later ones bring more.
    assert metrics_of(sorted(parts, key=len), ranked) == whole


def test_intervals_are_those_of_drawing_with_replacement(ranked: dict[str, Any]) -> None:
    """Ends of intervals are within a third of the width of those of another bootstrap."""
    actual = {m.method: m for m in metrics_of([np.arange(60)], ranked) if (m.slice, m.metric) == ("all", "NDCG@20")}
    offsets = np.cumsum([0, *ranked["counts"]])
    for method, values in ranked["ranks"].items():
        drawn = (ndcg(values, 20, offsets),)
        low, high = bootstrap(drawn, np.mean, n_resamples=2_000, method="percentile", rng=0).confidence_interval
        assert abs(actual[method].low - low) < (high - low) / 3
        assert abs(actual[method].high - high) < (high - low) / 3


def test_a_slice_of_one_user_has_an_interval() -> None:
    unknown = 0
    for seed in range(64):  # in about a third of the seeds, the only resample has no user
        sums = SplitSums([10], samples=1, seed=seed)
        sums.add(np.array([5], np.uint64), np.array([3]), np.array([0]), {}, {"one": np.array([2.0])})
        (row,) = [metric for metric in sums.metrics() if metric.metric == "NDCG@10"]
        assert row.value == pytest.approx(1 / np.log2(3), abs=1e-14)
        assert row.low <= row.value <= row.high
        unknown += (row.low, row.high) == (0.0, 1.0)
        assert (row.low, row.high) == (0.0, 1.0) or row.high - row.low < 1e-7
    assert 10 < unknown < 40
