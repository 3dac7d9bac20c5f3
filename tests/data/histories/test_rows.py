"""The plan of the rows against numpy's assembly: bit for bit, in one shuffle and one aggregate."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import TypeAdapter
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from learn_spark.core.settings.histories import HistoriesSettings, TimeSplitHistoriesSettings
from learn_spark.core.tables.contracts import contract
from learn_spark.data.histories.assemble import Size, assemble
from learn_spark.data.histories.rows import sorted_aggregates
from tests import numpy_histories
from tests.numpy_histories import AssemblyPlan, assemble_stream

HISTORIES: TypeAdapter[HistoriesSettings] = TypeAdapter(HistoriesSettings)


@pytest.mark.parametrize(
    "plan", [AssemblyPlan("leave_last_out", 4), AssemblyPlan("time_split", 6, split_time=500, targets=2)]
)
@pytest.mark.parametrize("sampled", [False, True])
def test_a_stream_in_any_portions_gives_what_one_block_gives(
    plan: AssemblyPlan, sampled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks far smaller than a user: what is carried over is thinned, and nothing but the portions changes."""
    chance = random.Random(5)
    rows: list[dict[str, Any]] = []
    for user in range(7):
        for n in range(chance.choice([1, 3, 40, 900])):
            rows.append(
                {
                    # two users share a run, as a hash might have it
                    "run": user // 2,
                    "user_id": f"u{user}",
                    "chunk": 0,
                    "item_index": chance.randint(1, 99),
                    "time": chance.randint(1, 1000),
                    "event_id": f"{chance.random():.12f}-{n}",
                    "weight": 1.0,
                    "n_events": 0,
                    "role": user % 3,
                    **({"draw": chance.getrandbits(40)} if sampled else {}),
                }
            )
    rows.sort(key=lambda row: row["run"])
    table = pa.Table.from_pylist(rows)
    schema = contract("user_histories").arrow_schema()

    def assembled(portion: int, block: int) -> list[dict[str, Any]]:
        monkeypatch.setattr(numpy_histories, "BLOCK_EVENTS", block)
        out = pa.Table.from_batches(list(assemble_stream(plan, schema)(iter(table.to_batches(portion)))))
        return out.sort_by("user_id").to_pylist()

    at_once = assembled(10_000, 1 << 20)
    for portion, block in ((1, 5), (7, 20), (64, 64), (1000, 1)):
        assert assembled(portion, block) == at_once
    for row in at_once:
        events = sorted((r["time"], r["event_id"], r["item_index"]) for r in rows if r["user_id"] == row["user_id"])
        assert row["n_events"] == len(events)
        if plan.split_time is None:
            assert row["item_index"][: row["length"]] == [item for _, _, item in events[-4:]]


@pytest.mark.parametrize("protocol", ["leave_last_out", "last_day", "books_hllm", "newest", "uniform", "before"])
def test_sparks_plan_gives_what_numpy_gives(spark: SparkSession, protocol: str) -> None:
    """Bit for bit, in one shuffle: heavy and small users, ties in time, days, weights, any order of arrival."""
    chance, day, split = random.Random(7), 86_400_000_000, 5 * 86_400_000_000
    events = [
        {
            "user_id": f"u{user}",
            "item_index": chance.randint(1, 99),
            "time": chance.choice(
                [chance.randint(-3, 12) * day + chance.choice([-1, 0, 1]), chance.randint(0, 12 * day)]
            ),
            "event_id": f"{chance.random():.12f}-{n}",
            "weight": chance.choice([0.25, 1.0]),
        }
        for user in range(60)
        for n in range(chance.choice([1, 2, 5, 40, 200]))
    ]
    chance.shuffle(events)
    given: dict[str, Any] = {"max_length": 12}
    if protocol in ("newest", "uniform", "before"):
        given |= {"protocol": "time_split", "split_time": "1970-01-06", "targets": 4, "held_out": 0.2}
        given |= {"sample": "uniform"} if protocol == "uniform" else {"train_after_split": protocol != "before"}
        plan = AssemblyPlan("time_split", 12, split, 4, protocol != "before")
    else:
        given |= {"protocol": protocol, "long_users": "chunks" if protocol == "books_hllm" else "newest"}
        plan = AssemblyPlan(protocol, 12)
    settings = HISTORIES.validate_python(given)
    frame = spark.createDataFrame(
        events, "user_id string, item_index int, time long, event_id string, weight float"
    ).repartition(3)
    if protocol == "before":  # the events of training users from the split on are not usable
        share = F.pmod(F.xxhash64("user_id", F.lit("held out")), F.lit(1_000_000)) / 1_000_000
        frame = frame.where((F.col("time") < split) | (share < 0.4))
    rows = assemble(frame, settings, Size(60, len(events)))
    with sorted_aggregates(spark):
        plan_lines = rows._jdf.queryExecution().executedPlan().toString().splitlines()
    # The second shuffle is the test's own, which delivers the events in another order.
    assert sum("Exchange" in line for line in plan_lines) == 2
    # One aggregate, over sorted rows: of the users of a partition one is in memory at a time, and collected once.
    aggregates = [line for line in plan_lines if "Aggregate(" in line]
    assert len(aggregates) == 1
    assert "SortAggregate(" in aggregates[0]
    spark_rows = sorted((row.asDict() for row in rows.collect()), key=lambda row: (row["user_id"], row["chunk"]))
    given_rows = placed_for_numpy(frame, settings)
    schema = contract("user_histories").arrow_schema()
    table = pa.Table.from_batches(list(assemble_stream(plan, schema)(iter(given_rows.to_batches()))))
    numpy_rows = table.sort_by([("user_id", "ascending"), ("chunk", "ascending")]).to_pylist()
    assert spark_rows == numpy_rows
    assert sum(row["n_events"] > row["length"] for row in numpy_rows) > 10


def placed_for_numpy(events: Any, settings: HistoriesSettings) -> pa.Table:
    """The events with the columns that ``assemble_stream`` reads, made by other plans than the assembly's."""
    if isinstance(settings, TimeSplitHistoriesSettings):
        share = F.pmod(F.xxhash64("user_id", F.lit("held out")), F.lit(1_000_000)) / 1_000_000
        events = events.withColumn("role", F.when(share < 0.2, 2).when(share < 0.4, 1).otherwise(0))
        if settings.sample == "uniform":
            events = events.withColumn("draw", F.xxhash64("event_id", F.lit("stage 1")))
    elif settings.long_users == "chunks":
        frame = events.toPandas().sort_values(["time", "event_id"], ascending=False)
        place = frame.groupby("user_id").cumcount()
        frame["chunk"] = np.where(place < 12, 0, (place - 12) // 10 + 1).astype("int32")
        frame["n_events"] = frame.groupby("user_id")["item_index"].transform("count").astype("int64")
        events = events.sparkSession.createDataFrame(frame)
        events = events.withColumn("chunk", F.col("chunk").cast("int"))
        events = events.withColumn("item_index", F.col("item_index").cast("int"))
    return events.withColumn("run", F.xxhash64("user_id")).coalesce(1).sortWithinPartitions("run").toArrow()
