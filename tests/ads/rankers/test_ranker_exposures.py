"""Coding exposures in Spark: order, weights, context, the split by time; vocabularies of training alone; cohorts."""

from __future__ import annotations

import zlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from learn_spark.ads.inputs.split import Split, sizes_of, split_by_time, times_at
from learn_spark.ads.inputs.vocabulary import Hashed, Lookup, read_vocabularies, write_vocabularies
from learn_spark.ads.rankers.inputs import cyclic_time
from learn_spark.core.errors import LearnSparkError, SettingsError
from learn_spark.core.settings.ads import RankingSettings
from learn_spark.core.storage.path import storage_path
from tests.ads.rankers.ads_world import START, AdsWorld, Coded, exposure

MICROS = round(START.timestamp() * 1e6)


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> AdsWorld:
    world = AdsWorld(tmp_path_factory.mktemp("exposures"), spark)
    world.events([("u", "i", -10)])
    return world


def values(coded: Coded, vocabularies: dict[str, Lookup]) -> dict[str, list[str | None]]:
    """The texts that the rows of each field stand for."""
    texts = {}
    for number, (name, vocabulary) in enumerate(vocabularies.items()):
        every = ["?", None, *vocabulary.values.to_pylist()]
        texts[name] = [every[row] for row in coded.rows[f"row_{number}"].to_pylist()]
    return texts


def test_in_the_order_of_time_and_id_without_what_was_not_shown(world: AdsWorld) -> None:
    world.release("r0", -5, {"u": [1.0]}, {"i": [1.0]})
    world.exposures(
        [
            exposure("c", "u", "i", 20, True, position=3, context={"place": "top", "week": "1"}, request_id="r2"),
            exposure("b", "v", "i", 10, weight=20.0, context={"place": "end"}),
            exposure("not shown", "v", "i", 5, weight=0.0),
            exposure("a", "u", "j", 10, context=None, request_id="r1"),
        ]
    )
    shown = world.shown(["place"])
    assert (shown.rows, shown.others) == (3, 1)
    assert (shown.first, shown.last) == (MICROS + 10_000_000, MICROS + 20_000_000)
    vocabularies = world.lookups(shown)
    for small in (True, False):
        coded = world.coded(context=["place"], vocabularies=vocabularies, small=small)
        rows = coded.rows.to_pydict()
        assert rows["event_id"] == ["a", "b", "c"]
        assert rows["time"] == [MICROS + s * 1_000_000 for s in (10, 10, 20)]
        assert rows["label"] == [0, 0, 1]
        assert rows["weight"] == [1.0, 20.0, 1.0]
        assert values(coded, vocabularies) == {
            "user_id": ["u", "v", "u"],
            "item_id": ["j", "i", "i"],
            "position": [None, None, "3"],
            "place": [None, "end", "top"],
        }
        # Users and items of the test are numbered in the order of their ids.
        assert (rows["user"], rows["item"]) == ([0, 1, 0], [1, 0, 0])
        assert (coded.files.test_users, coded.files.test_items) == (2, 2)
        assert (rows["request"], coded.files.test_requests) == ([0, -1, 1], 2)
    later = world.shown(since=MICROS + 20_000_000)
    assert ([row.event_id for row in later.frame.collect()], later.others) == (["c"], 3)
    with pytest.raises(LearnSparkError, match=r"no exposure has the context shelf that .* there are place, week"):
        world.shown(["shelf"])
    with pytest.raises(LearnSparkError, match=r"none of 4 rows .* is an exposure"):
        world.shown(since=MICROS + 20_000_001)


def test_the_order_does_not_depend_on_files(world: AdsWorld) -> None:
    rows = [exposure(f"e{n:03}", f"u{n % 7}", f"i{n % 11}", (1000 - n) // 3, n % 3 == 0) for n in range(200)]
    read = []
    for order in (rows, rows[::-1]):
        world.exposures(order)
        vocabularies = world.lookups(world.shown())
        read.append(world.coded(vocabularies=vocabularies, small=len(read) > 0).rows)
    expected = sorted(rows, key=lambda row: (row["event_time"], row["event_id"]))
    assert read[0]["event_id"].to_pylist() == [row["event_id"] for row in expected]
    assert read[0].equals(read[1])


def test_the_split_keeps_an_instant_together(spark: SparkSession) -> None:
    time = np.repeat(np.arange(6), 4) * 1_000_000
    frame = spark.createDataFrame([(int(t),) for t in time], "time long")
    settings = RankingSettings(train_share=0.4, validation_share=0.2)
    split = split_by_time(frame, 24, 0, 5_000_000, settings)
    # 40 % of 24 rows end within the third instant, 60 % within the fourth.
    assert split == Split(2_000_000, 3_000_000)
    assert sizes_of(frame, 24, split) == {"train": 8, "validation": 4, "test": 12}
    same = frame.select(F.lit(0).cast("long").alias("time"))
    with pytest.raises(LearnSparkError, match=r"24 exposures cannot be split by time: 0 for train, 0 for validation"):
        sizes_of(same, 24, split_by_time(same, 24, 0, 0, RankingSettings()))
    at_two_times = RankingSettings(validation_from="1970-01-01T00:00:01", test_from="1970-01-01T00:00:04")
    sizes = sizes_of(frame, 24, split_by_time(frame, 24, 0, 5_000_000, at_two_times))
    assert list(sizes.values()) == [4, 12, 8]
    late = RankingSettings(validation_from="1970-01-01T00:00:01", test_from="1980-01-01")
    with pytest.raises(LearnSparkError, match="0 for test"):
        sizes_of(frame, 24, split_by_time(frame, 24, 0, 5_000_000, late))


def test_the_time_at_a_position_by_histograms_is_that_of_sorting(spark: SparkSession) -> None:
    chance = np.random.default_rng(0)
    drawn = np.concatenate([chance.integers(-(10**9), 10**12, 300), np.full(100, 77), chance.integers(70, 90, 100)])
    frame = spark.createDataFrame([(int(t),) for t in drawn], "time long").repartition(3)
    positions = [0, 1, 140, 250, 498, 499]
    times = np.sort(drawn)
    assert times_at(frame, positions, int(times[0]), int(times[-1]), bins=50) == times[positions].tolist()
    assert times_at(frame, positions[:2], int(times[0]), int(times[-1])) == times[positions[:2]].tolist()


def test_values_that_training_did_not_have_share_the_unknown_row(world: AdsWorld, tmp_path: Path) -> None:
    users = ["a", "b", "a", "b", "rare", "only later", "only later"]
    world.exposures([exposure(f"e{n}", user, "i", n, position=n % 2 or None) for n, user in enumerate(users)])
    shown = world.shown()
    first_five = f"time < {MICROS + 5_000_000}"
    lookups = world.lookups(shown, first_five, 2)
    assert lookups["user_id"].values.to_pylist() == ["a", "b"]
    assert lookups["user_id"].size == 4
    # Two exposures, both from after training: no row of its own, whatever its count.
    assert "only later" not in world.lookups(shown, first_five, 1)["user_id"].values.to_pylist()
    assert world.coded(vocabularies=lookups).rows["row_0"].to_pylist() == [2, 3, 2, 3, 0, 0, 0]
    assert world.coded(vocabularies=lookups).rows["row_2"].to_pylist() == [1, 2, 1, 2, 1, 2, 1]
    every = world.lookups(shown, first_five, 1)
    assert world.coded(vocabularies=every).rows["row_0"].to_pylist() == [2, 3, 2, 3, 4, 0, 0]
    hashed: dict[str, Any] = dict.fromkeys(shown.fields, Hashed(5))
    coded = world.coded(vocabularies=hashed).rows
    assert coded["row_0"].to_pylist() == [2 + zlib.crc32(user.encode()) % 5 for user in users]
    assert coded["row_2"].to_pylist() == [1 if n % 2 == 0 else 2 + zlib.crc32(b"1") % 5 for n in range(7)]
    path = storage_path(tmp_path / "v.parquet")
    write_vocabularies({"x": lookups["user_id"], "y": Lookup(lookups["user_id"].values.slice(0, 0))}, path)
    kept = read_vocabularies(path, ["x", "y"], None)
    assert [kept[name].values.to_pylist() for name in "xy"] == [["a", "b"], []]  # type: ignore[union-attr]
    assert read_vocabularies(path, ["x"], 5) == {"x": Hashed(5)}


def test_the_time_of_day_and_of_week_on_circles() -> None:
    monday = MICROS
    # Two hours are a twelfth of a day's circle, two days two sevenths of a week's.
    points = cyclic_time(
        np.array([monday, monday + 7200 * 1_000_000, monday + round(timedelta(days=2.5) / timedelta(microseconds=1))])
    )
    assert points[0] == pytest.approx([0, 1, 0, 1])
    assert points[1] == pytest.approx([np.sin(np.pi / 6), np.cos(np.pi / 6), 0, 1], abs=1e-6)
    assert points[2] == pytest.approx([0, -1, np.sin(4 * np.pi / 7), np.cos(4 * np.pi / 7)], abs=1e-6)


def test_cohorts_count_events_strictly_before_the_release(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> None:
    world = AdsWorld(tmp_path_factory.mktemp("cohorts"), spark)
    world.release("r1", 100, {"u": [1.0, 0.0]}, {"i": [1.0, 0.0]})
    world.release("r2", 200, {"u": [1.0, 0.0]}, {"i": [1.0, 0.0]})
    world.exposures([exposure(f"e{s}", "u", item, s) for s, item in ((50, "i"), (150, "i"), (250, "i"), (251, "new"))])
    # Two events of i before the first exposure, one more before r1; the one at 100 and that at 160 are before r2 alone.
    world.events([("u", "i", s) for s in (10, 20, 60, 100, 160, 200, 260)] + [("v", "j", 5)])
    coded = world.coded("ranking.cohorts={item: [3, 5], user: [1, 100]}")
    assert coded.rows["release"].to_pylist() == [-1, 0, 1, 1]
    assert coded.rows["item_cohort"].to_pylist() == [0, 1, 2, 0]
    assert coded.rows["user_cohort"].to_pylist() == [1, 1, 1, 1]


def test_settings_that_do_not_fit(world: AdsWorld) -> None:
    for wrong, message in (
        ("ranking.cohorts.item=[5, 5]", "thresholds must rise"),
        ("ranking.train_share=0.95", "leave no exposures for the test"),
        ("ranking.test_from=2024-01-02", "give both or neither"),
        ("ranking.test_from=tomorrow", "is not an ISO time"),
        ("ranking.since=2024-01-02", "for mode score"),
        ("ranking.seeds=[1, 1]", "has a repeated value"),
        ("ranking.positive_value=4", "there is no such setting"),
        ("ranking.fusion_dim=8", "ranking.fusion_dim is now ranking.adaptor_dim"),
        ("ranking.variants=[best]", "ranking.variants"),
    ):
        with pytest.raises(SettingsError, match=message):
            world.settings(wrong)
