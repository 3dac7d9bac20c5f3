"""Backfilled releases know nothing of their day or later, and what consumers read as the latest stays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

import learn_spark.features
from learn_spark.core.console import Reporter
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.features.ledger import ledger as rows_of
from learn_spark.features.ledger import states
from learn_spark.features.models import usable_model
from learn_spark.features.read import read_release
from learn_spark.pipeline.backfill import backfill
from learn_spark.pipeline.runner import run_stages
from tests.features.feature_world import FeatureWorld
from tests.report.planted import FIRST_DAY

SHORT = ("training.epochs=1", "training.passes_per_epoch=1", "tower.kind=sasrec", "embedding_space.kind=raw")
DAYS = ("2024-01-06", "2024-01-07")


def test_a_day_gone_by_is_published_as_of_itself_and_the_latest_stays(spark: SparkSession, tmp_path: Path) -> None:
    world = FeatureWorld(tmp_path, spark)
    world.items({f"i{n}": f"text {n}" for n in range(1, 9)})
    world.put("items", [{"item_id": item, "title": item} for item in world.texts])
    events = []
    for user in range(24):
        # The last six came on January 7: no release of an earlier day knows them.
        start = FIRST_DAY + timedelta(days=5, hours=12) if user >= 18 else FIRST_DAY
        for number in range(8):
            at = start + timedelta(hours=20 * number)
            event = {"event_id": f"{user}-{number}", "user_id": f"u{user}", "item_id": f"i{1 + (user + number) % 8}"}
            events.append({**event, "event_type": "buy", "event_time": at, "event_date": at.date()})
    world.put("interactions", events)
    run_stages(["histories"], world.settings(*SHORT), console=Reporter(quiet=True))
    world.train()
    live, _ = world.publish()
    before = world.vectors("user_features")

    backfill(lambda more: world.settings(*SHORT, *more), DAYS, console=Reporter(quiet=True))
    assert read_release(world.workspace).release_id == live
    backfilled = [row for row in states(rows_of(world.workspace)).values() if row.status == "backfilled"]
    assert [row.as_of for row in backfilled] == [datetime(2024, 1, n, tzinfo=UTC) for n in (6, 7)]
    for row, users in zip(backfilled, (18, 24), strict=True):
        assert len(world.vectors("user_features", row.version("user_features"))) == users
        histories = Snapshot.open(world.workspace.table("user_histories"), int(row.inputs["user_histories"]))
        latest = max(max(times) for times in histories.to_arrow()["event_time"].to_pylist())
        assert latest < row.as_of.timestamp() * 1e6
    # Training data gets its own day's; the latest is read as before.
    columns = "user_id string, item_id string, event_time timestamp"
    asked = spark.createDataFrame([("u1", "i1", datetime(2024, 1, day, 15, tzinfo=UTC)) for day in (5, 6, 7)], columns)
    found = learn_spark.features.features_at(spark, asked, clock="as_of", workspace=world.workspace).collect()
    ids = {row.event_time.day: row.release_id for row in found}
    assert [ids[6], ids[7]] == [row.release_id for row in backfilled]
    assert ids[5] is None
    read = learn_spark.features.read(spark, "user_features", workspace=world.workspace).collect()
    assert {row.user_id: row.embedding for row in read}.keys() == before.keys()
    assert all(np.array_equal(np.float32(row.embedding), before[row.user_id]) for row in read)
    # The histories are today's again, and so is the model that a publishing of today takes.
    now = Snapshot.open(world.workspace.table("user_histories")).to_arrow(["user_id", "n_events"])
    assert set(now["n_events"].to_pylist()) == {8}
    assert usable_model(world.settings(), world.workspace) == world.model_id
    with pytest.raises(LearnSparkError, match="no model was trained on all events"):
        usable_model(world.settings(*SHORT), world.workspace)
    assert usable_model(world.settings(*SHORT, "histories.as_of=2024-01-07"), world.workspace) != world.model_id
    with pytest.raises(
        LearnSparkError,
        match=r"no model was trained as of 2024-01-05 or earlier: learn-spark train --set histories\.as_of",
    ):
        usable_model(world.settings(*SHORT, "histories.as_of=2024-01-05"), world.workspace)
