"""Logs of every format give the same rows, and Spark assigns arms as Python does."""

from __future__ import annotations

import csv
from pathlib import Path

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from learn_spark.ads.experiments.assignment import arm, arm_column
from learn_spark.ads.experiments.configure import settings_of
from learn_spark.ads.experiments.simulate import simulated_log
from learn_spark.data.sources.exposure_log import read_logs


@pytest.fixture(scope="module")
def log() -> pa.Table:
    return simulated_log(200, seed=1)


def test_spark_assigns_as_python_does(spark: SparkSession) -> None:
    users = [f"user-{n}é" for n in range(300)]
    shares = {"a": 1, "b": 2, "c": 1}
    frame = spark.createDataFrame([(user,) for user in users], "user string")
    got = [row[0] for row in frame.select(arm_column("user", "x", "s", shares, traffic=0.7)).collect()]
    assert got == [arm(user, "x", "s", shares, traffic=0.7) for user in users]
    assert set(got) == {"a", "b", "c", None}


def test_csv_and_delta_give_what_parquet_gives(spark: SparkSession, log: pa.Table, tmp_path: Path) -> None:
    few = pa.concat_tables([log.slice(0, 20), log.slice(len(log) - 20)])
    pq.write_table(few, tmp_path / "one.parquet")
    deltalake.write_deltalake(str(tmp_path / "two"), few)
    lines = [
        row | {"event_time": row["event_time"].isoformat(), "converted": int(row["converted"]), "position": "3.0"}
        for row in few.to_pylist()
    ]
    lines.append(
        lines[0] | {"event_id": "bad", "context": "phone", "position": "-1", "weight": "-1", "converted": "maybe"}
    )
    with (tmp_path / "three.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, few.column_names)
        writer.writeheader()
        writer.writerows(lines)
    read = []
    for name in ("one.parquet", "two", "three.csv"):
        settings = settings_of(str(tmp_path / name), [])
        rows = read_logs(spark, Path(settings.path), settings.logs, {"device": "context['device']"}).collect()
        read.append({row["event_id"]: row.asDict() | {"position": None} for row in rows})
        assert {row.pop("source_file") for row in read[-1].values()} == {name}
    refused = read[2].pop("bad")
    assert refused["reasons"] == ["converted is not true or false", "weight is not a number from 0 on"]
    assert refused["flaws"] == ["context is not a JSON object", "position is not a whole number from 1 on"]
    assert (refused["context"], refused["position"]) == (None, None)
    assert len(read[0]) == 40
    assert {row["cohort_device"] for row in read[0].values()} == {"phone", "desktop"}
    assert all(row["reasons"] == row["flaws"] == [] for row in read[0].values())
    assert read[0] == read[1] == read[2]
