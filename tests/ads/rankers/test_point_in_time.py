"""Nothing from after an exposure reaches its features: a planted later release, both clocks, Spark's join."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables import delta
from learn_spark.features.point_in_time import Clock, features_at, releases_at
from tests.ads.rankers.ads_world import AdsWorld, Coded, exposure
from tests.features.published import DAYS, Published

LEAK = [9.0, 9.0]


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> AdsWorld:
    """r1 as of 100 published at 120, r2 as of 200 published at 220: it knows what r1 does not, by other vectors."""
    world = AdsWorld(tmp_path_factory.mktemp("leak"), spark)
    world.release("r1", 100, {"u": [1.0, 0.0], "w": [0.0, 1.0]}, {"i": [0.5, 0.5]}, published=120)
    world.release("r2", 200, {"u": LEAK, "v": LEAK}, {"i": LEAK, "j": LEAK}, published=220)
    world.exposures(
        [
            exposure(f"{user}{item}{seconds}", user, item, seconds)
            for seconds in (99, 100, 120, 121, 199, 200, 220, 221, 300)
            for user, item in (("u", "i"), ("v", "j"), ("w", "i"), ("nobody", "nothing"))
        ]
    )
    world.events([("u", "i", -10)])
    return world


def rows_of(coded: Coded) -> dict[str, tuple[str | None, list[float], list[float]]]:
    return {
        row["event_id"]: (
            coded.files.releases[row["release"]].release_id if row["release"] >= 0 else None,
            coded.vectors[row["user_row"]].tolist(),
            coded.vectors[row["item_row"]].tolist(),
        )
        for row in coded.rows.to_pylist()
    }


@pytest.mark.parametrize(("clock", "first", "second"), [("as_of", 100, 200), ("published", 121, 221)])
def test_a_later_release_never_reaches_an_exposure(world: AdsWorld, clock: Clock, first: int, second: int) -> None:
    coded = world.coded(f"ranking.clock={clock}")
    read = rows_of(coded)
    nothing = [0.0, 0.0]
    for seconds in (99, 100, 120, 121, 199, 200, 220, 221, 300):
        release = "r2" if seconds >= second else "r1" if seconds >= first else None
        user, item = {"r2": (LEAK, LEAK), "r1": ([1.0, 0.0], [0.5, 0.5]), None: (nothing, nothing)}[release]
        assert read[f"ui{seconds}"] == (release, user, item)
        # Known to the later release alone, to the earlier alone, to none.
        assert read[f"vj{seconds}"][1:] == ((LEAK, LEAK) if release == "r2" else (nothing, nothing))
        assert read[f"wi{seconds}"][1] == ([0.0, 1.0] if release == "r1" else nothing)
        assert read[f"nobodynothing{seconds}"] == (release, nothing, nothing)
    # Once an entity and release: u and w and i of r1; u, v, i, j of r2; and the row for none.
    assert coded.vectors.shape == (1 + 3 + 4, 2)
    assert not coded.vectors[0].any()


@pytest.mark.parametrize("clock", ["as_of", "published"])
def test_it_is_what_spark_joins(world: AdsWorld, clock: Clock) -> None:
    read = rows_of(world.coded(f"ranking.clock={clock}", small=False))
    events = delta.read(world.spark, world.workspace.table("exposures"))
    joined = features_at(world.spark, events, clock=clock, workspace=world.workspace).collect()
    assert len(joined) == len(read)
    for row in joined:
        vectors = [row.user_embedding or [0.0, 0.0], row.item_embedding or [0.0, 0.0]]
        assert read[row.event_id] == (row.release_id, *vectors), row.event_id


def test_withdrawn_and_rolled_back_releases(
    spark: SparkSession, published_copy: Callable[[Path], Published], tmp_path: Path
) -> None:
    published = published_copy(tmp_path)
    times = np.array([round(day.timestamp() * 1e6) + hour for day in DAYS for hour in (-1, 0, 1)])
    frame = spark.createDataFrame([("a", "x", int(t)) for t in times], "user_id string, item_id string, micros long")
    events = frame.selectExpr("*", "timestamp_micros(micros) as event_time")
    for clock in ("published", "as_of"):
        releases, place = releases_at(published.workspace, times, clock)  # type: ignore[arg-type]
        ours = [None if at < 0 else releases[at].release_id for at in place]
        joined = features_at(spark, events, clock=clock, workspace=published.workspace).collect()  # type: ignore[arg-type]
        theirs = {row.micros: row.release_id for row in joined}
        assert ours == [theirs[int(t)] for t in times], clock


def test_no_release_before_any_exposure_and_vectors_of_two_towers(
    world: AdsWorld, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = AdsWorld(tmp_path_factory.mktemp("none"), spark)
    other.release("late", 500, {"u": [1.0]}, {"i": [1.0]})
    other.exposures([exposure("a", "u", "i", 100), exposure("b", "u", "i", 600)])
    other.events([("u", "i", -10)])
    with pytest.raises(
        LearnSparkError, match=r"by the clock as_of no release is from before any exposure .*\(2024-01-01 00:01:40"
    ):
        other.coded(where="event_id = 'a'")
    # A ranker that reads no vectors needs no release.
    assert other.coded(where="event_id = 'a'", with_features=False).rows["user_row"].to_pylist() == [0]
    other.release("another tower's", 550, {"u": [1.0, 2.0]}, {"i": [1.0, 2.0]}, model="m2")
    other.exposures([exposure("a", "u", "i", 510), exposure("b", "u", "i", 600)])
    with pytest.raises(LearnSparkError, match="vectors of 2 towers, which are not in one space"):
        other.coded()
