"""Reading exposures: order, weights, context, the split by time; vocabularies of training alone; cohorts."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from learn_spark.ads.rankers.cohorts import cohorts_of
from learn_spark.ads.rankers.exposures import CodedColumn, read_exposures, split_by_time
from learn_spark.ads.rankers.features import features_of
from learn_spark.ads.rankers.inputs import cyclic_time
from learn_spark.ads.rankers.vocabulary import Hashed, Lookup, of_arrow, to_arrow
from learn_spark.core.errors import LearnSparkError, SettingsError
from learn_spark.core.settings.ads import CohortsSettings, RankingSettings
from learn_spark.core.tables.snapshot import Snapshot
from tests.ads.rankers.ads_world import START, AdsWorld, exposure


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> AdsWorld:
    return AdsWorld(tmp_path_factory.mktemp("exposures"), spark)


def values(field: CodedColumn) -> list[str | None]:
    return [None if code < 0 else field.values[code] for code in field.codes]


def test_in_the_order_of_time_and_id_without_what_was_not_shown(world: AdsWorld) -> None:
    world.exposures(
        [
            exposure("c", "u", "i", 20, True, position=3, context={"place": "top", "week": "1"}),
            exposure("b", "v", "i", 10, weight=20.0, context={"place": "end"}),
            exposure("not shown", "v", "i", 5, weight=0.0),
            exposure("a", "u", "j", 10, context=None),
        ]
    )
    snapshot = Snapshot.open(world.workspace.table("exposures"))
    exposures, others = read_exposures(snapshot, ["place"])
    assert (len(exposures), others) == (3, 1)
    assert exposures.event_id.to_pylist() == ["a", "b", "c"]
    assert exposures.time.tolist() == [round(START.timestamp() * 1e6) + s * 1_000_000 for s in (10, 10, 20)]
    assert exposures.label.tolist() == [0, 0, 1]
    assert exposures.weight.tolist() == [1.0, 20.0, 1.0]
    fields = {name: values(field) for name, field in exposures.fields.items()}
    assert fields == {
        "user_id": ["u", "v", "u"],
        "item_id": ["j", "i", "i"],
        "position": [None, None, "3"],
        "place": [None, "end", "top"],
    }
    later, others = read_exposures(snapshot, [], since=int(exposures.time[2]))
    assert (later.event_id.to_pylist(), others) == (["c"], 3)
    with pytest.raises(LearnSparkError, match=r"no exposure has the context shelf that .* there are place, week"):
        read_exposures(snapshot, ["shelf"])
    with pytest.raises(LearnSparkError, match=r"none of 4 rows .* is an exposure"):
        read_exposures(snapshot, [], since=int(exposures.time[2]) + 1)


def test_a_table_of_many_files_gives_every_row(world: AdsWorld, tmp_path: Path) -> None:
    rows = [exposure(f"e{n:03}", f"u{n % 7}", f"i{n % 11}", 1000 - n, n % 3 == 0) for n in range(200)]
    world.exposures(rows)
    exposures = world.read()
    assert exposures.event_id.to_pylist() == [row["event_id"] for row in sorted(rows, key=lambda r: r["event_time"])]
    assert values(exposures.fields["item_id"]) == [f"i{(199 - n) % 11}" for n in range(200)]


def test_the_split_keeps_an_instant_together() -> None:
    time = np.repeat(np.arange(6), 4) * 1_000_000
    split = split_by_time(time, RankingSettings(train_share=0.4, validation_share=0.2))
    # 40 % of 24 rows end within the third instant, 60 % within the fourth.
    assert (split.validation_from, split.test_from) == (2_000_000, 3_000_000)
    masks = split.masks(time)
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"train": 8, "validation": 4, "test": 12}
    assert np.array_equal(sum(mask.astype(int) for mask in masks.values()), np.ones(24))
    with pytest.raises(LearnSparkError, match=r"24 exposures cannot be split by time: 0 for train, 0 for validation"):
        split_by_time(np.zeros(24, dtype=np.int64), RankingSettings())
    at_two_times = RankingSettings(validation_from="1970-01-01T00:00:01", test_from="1970-01-01T00:00:04")
    assert [int(mask.sum()) for mask in split_by_time(time, at_two_times).masks(time).values()] == [4, 12, 8]
    with pytest.raises(LearnSparkError, match="0 for test"):
        split_by_time(time, RankingSettings(validation_from="1970-01-01T00:00:01", test_from="1980-01-01"))


def test_values_that_training_did_not_have_share_the_unknown_row() -> None:
    field = CodedColumn(np.array(["a", "b", "rare", "only later"], dtype=object), np.array([0, 1, 0, 1, 2, 3, -1]))
    train = CodedColumn(field.values, field.codes[:5])
    lookup = Lookup.of(train, 2)
    assert lookup.row_of == {"a": 2, "b": 3}
    assert lookup.size == 4
    assert lookup.rows(field).tolist() == [2, 3, 2, 3, 0, 0, 1]
    assert Lookup.of(train, 1).rows(field).tolist() == [2, 3, 2, 3, 4, 0, 1]
    hashed = Hashed(5)
    rows = hashed.rows(field)
    assert rows[6] == 1
    assert ((rows[:6] >= 2) & (rows[:6] < hashed.size)).all()
    # Another order of arrival hashes alike.
    again = CodedColumn(field.values[::-1], 3 - field.codes[:6])
    assert hashed.rows(again).tolist() == rows[:6].tolist()
    kept = of_arrow(to_arrow({"x": lookup, "y": Lookup({})}), ["x", "y"], None)
    assert kept == {"x": lookup, "y": Lookup({})}
    assert of_arrow(to_arrow({"x": hashed}), ["x"], 5) == {"x": hashed}


def test_the_time_of_day_and_of_week_on_circles() -> None:
    monday = round(START.timestamp() * 1e6)
    # Two hours are a twelfth of a day's circle, two days two sevenths of a week's.
    points = cyclic_time(
        np.array([monday, monday + 7200 * 1_000_000, monday + round(timedelta(days=2.5) / timedelta(microseconds=1))])
    )
    assert points[0] == pytest.approx([0, 1, 0, 1])
    assert points[1] == pytest.approx([np.sin(np.pi / 6), np.cos(np.pi / 6), 0, 1], abs=1e-6)
    assert points[2] == pytest.approx([0, -1, np.sin(4 * np.pi / 7), np.cos(4 * np.pi / 7)], abs=1e-6)


def test_cohorts_count_events_strictly_before_the_release(world: AdsWorld) -> None:
    world.release("r1", 100, {"u": [1.0, 0.0]}, {"i": [1.0, 0.0]})
    world.release("r2", 200, {"u": [1.0, 0.0]}, {"i": [1.0, 0.0]})
    world.exposures([exposure(f"e{s}", "u", item, s) for s, item in ((50, "i"), (150, "i"), (250, "i"), (251, "new"))])
    # Two events of i before the first exposure, one more before r1; the one at 100 and that at 160 are before r2 alone.
    world.events([("u", "i", s) for s in (10, 20, 60, 100, 160, 200, 260)] + [("v", "j", 5)])
    exposures = world.read()
    features = features_of(world.workspace, exposures, "as_of")
    assert features.release.tolist() == [-1, 0, 1, 1]
    interactions = Snapshot.open(world.workspace.table("interactions"))
    cohorts = cohorts_of(interactions, exposures, features, CohortsSettings(item=[3, 5], user=[1, 100]))
    assert cohorts["item"].tolist() == [0, 1, 2, 0]
    assert cohorts["user"].tolist() == [1, 1, 1, 1]


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
