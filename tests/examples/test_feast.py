"""The example of Feast, in Feast's own environment, on planted releases and a real Redis: what it serves and joins is
what learn-spark serves and joins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from learn_spark.features.point_in_time_arrow import features_at_arrow
from tests.features.online_world import NOON, OnlineWorld
from tests.servers import ROOT

FEAST = ROOT / ".venv-servers" / "bin" / "python"
ASK = """
import sys, serve
from feast import FeatureStore
store = FeatureStore(repo_path=".")
serve.ask(store, "a", "x", "y", "nobody")
serve.ask(store, "b", "y")
serve.join(store, *sys.argv[1:])
"""


def run(command: list[str], folder: Path, redis: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LEARN_SPARK"))}
    environment |= {
        "FEAST_REDIS": redis.removeprefix("redis://").partition("/")[0],
        "FEAST_PYTHON": str(FEAST),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_feast_serves_the_release_in_force_and_joins_what_was_served_at_every_time(
    tmp_path: Path, redis_url: str
) -> None:
    """Users and items come, change and go; r3 is withdrawn, so that r2 is in force again until r4."""
    world = OnlineWorld(str(tmp_path / "workspace"), redis_url, "unused")
    world.publish("r1", {"a": 1.0, "b": 2.0, "c": 3.0}, {"x": 10.0})
    world.publish("r2", {"a": 1.0, "b": 4.0}, {"x": 10.0, "y": 20.0})
    world.publish("r3", {"a": 5.0, "b": 6.0, "d": 7.0}, {"x": 11.0, "y": 21.0})
    world.withdraw("r3")
    world.publish("r4", {"a": 8.0, "c": 9.0}, {"y": 22.0})
    near = [timedelta(microseconds=n) for n in (-1, 0, 1)]
    times = [NOON + timedelta(days=day) + by for day in range(6) for by in near]
    rows = list(product(("a", "b", "c", "d", "nobody"), ("x", "y", "nothing"), times))
    users, items, at = (pa.array(column) for column in zip(*rows, strict=True))
    events = pa.table({"row": range(len(rows)), "user_id": users, "item_id": items, "event_time": at})
    pq.write_table(events, tmp_path / "events.parquet")

    run(
        [str(ROOT / "examples" / "feast" / "run.sh"), str(tmp_path / "workspace"), str(tmp_path / "feast")],
        tmp_path,
        redis_url,
    )
    command = [str(FEAST), "-c", ASK, str(tmp_path / "events.parquet"), str(tmp_path / "joined.parquet")]
    told = [json.loads(line) for line in run(command, tmp_path / "feast", redis_url).splitlines()]
    # Neither has the item x, which r4 does not have, nor the user b.
    assert told == [
        {"user": [8.0], "items": {"x": None, "y": [22.0], "nobody": None}},
        {"user": None, "items": {"y": [22.0]}},
    ]
    by_feast = pq.read_table(tmp_path / "joined.parquet")
    ours = features_at_arrow(world.workspace, events)
    for name in ("row", "user_embedding", "item_embedding"):
        assert by_feast[name].to_pylist() == ours[name].to_pylist(), name
    assert by_feast["user_embedding"].null_count > 100
