"""How fast are pushes to an online store and reads from it, beside a plain loop of SETs?

    make bench-online ARGS="--users 200000 --items 20000"

A first release of random vectors, then one in which a tenth of the users and items changed. Both are pushed to a new
Redis (redis-server of this machine, no disk) and to a SQLite file. The peer is what one would write first: a SET for
each vector of the release, one after the other, under a key. Reads are of one user and 99 items: from the store in one
round trip, and from the peer's keys as one MGET, which may mix two releases, by turns; then from the store, by a thread
of the same process, while the second push writes. The last line is JSON: vectors per second of pushes, milliseconds of
reads, and time of the processor (of this process).
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from learn_spark.core.settings.online import OnlineSettings
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import append_rows
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import LedgerRow
from learn_spark.features.online_store.address import open_store
from learn_spark.features.online_store.push import push
from learn_spark.features.online_store.reader import OnlineFeatures
from learn_spark.features.read import released_arrow
from tests.servers import redis_server

WIDTH, ITEMS_OF_A_READ = 64, 99
KEYS = {"user_features": "user_id", "item_features": "item_id"}


class Releases:
    """A workspace whose releases are written one after the other."""

    def __init__(self, folder: Path, sizes: dict[str, int]) -> None:
        self.workspace, self.sizes, self.count = Workspace.open(str(folder)), sizes, 0
        self.chance = np.random.default_rng(1)
        self.vectors = {table: self._draw(size) for table, size in sizes.items()}

    def publish(self, share: float) -> int:
        """Draw a share of the vectors anew and publish all; the number of vectors drawn."""
        from deltalake import DeltaTable, write_deltalake

        self.count += 1
        drawn, outputs, at = 0, {}, datetime(2024, 1, self.count, tzinfo=UTC)
        for table, size in self.sizes.items():
            changed = np.flatnonzero(self.chance.random(size) < share)
            self.vectors[table][changed] = self._draw(len(changed))
            drawn += len(changed)
            flat = pa.array(self.vectors[table].ravel())
            rows = {
                KEYS[table]: self.ids(table),
                "embedding": pa.ListArray.from_arrays(np.arange(size + 1, dtype=np.int32) * WIDTH, flat),
                "release_id": ["r"] * size,
                "as_of": pa.array([datetime(2024, 1, 1, tzinfo=UTC)] * size, pa.timestamp("us", "UTC")),
                "fingerprint": np.zeros(size, np.int64),
            }
            path = self.workspace.table(table)
            write_deltalake(path, pa.table(rows).cast(contract(table).arrow_schema()), mode="overwrite")
            outputs[table] = str(DeltaTable(path).version())
        row = LedgerRow(
            release_id=f"r{self.count}", status="released", model_id="m", code_version="c", encoder_key="e", inputs={},
            outputs=outputs, gate_results=None, metrics={}, as_of=at, run_id="r", note=None, sequence=self.count,
            written_at=at,
        )  # fmt: skip
        append_rows(self.workspace.table("releases"), contract("releases"), [asdict(row)])
        return drawn

    def ids(self, table: str) -> list[str]:
        """The ids of a table."""
        return [f"{KEYS[table][:1]}{number}" for number in range(self.sizes[table])]

    def _draw(self, count: int) -> np.ndarray:
        return self.chance.standard_normal((count, WIDTH), dtype=np.float32)


Read = Callable[[str, list[str]], object]


def timed_reads(readers: dict[str, Read], releases: Releases, count: int) -> dict[str, dict[str, float]]:
    """By reader: p50 and p99 in ms of ``count`` reads, and ms of the processor a read. The readers take turns, after
    ten reads that do not count.
    """
    chance, users, items = random.Random(2), releases.ids("user_features"), releases.ids("item_features")
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    busy = dict.fromkeys(readers, 0.0)
    for number in range(count + 10):
        user, some = chance.choice(users), chance.sample(items, ITEMS_OF_A_READ)
        for name, read in readers.items():
            start, worked = time.perf_counter(), time.process_time()
            read(user, some)
            if number >= 10:
                seconds[name].append(time.perf_counter() - start)
                busy[name] += time.process_time() - worked
    return {name: _shares(each) | {"cpu_ms": round(1000 * busy[name] / count, 3)} for name, each in seconds.items()}


def _shares(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {f"p{share}_ms": round(1000 * ordered[int(share / 100 * len(ordered))], 3) for share in (50, 99)}


def measure_ours(releases: Releases, url: str, dtype: str, reads: int, peer: Read) -> dict[str, object]:
    """Push a release and the changes of another one, and read."""
    settings = OnlineSettings.model_validate({"dtype": dtype, "namespace": f"bench-{dtype}-{releases.count}"})
    store, reader = open_store(url, settings.namespace), OnlineFeatures(open_store(url, settings.namespace))

    def read(user: str, items: list[str]) -> None:
        reader.vectors([user], items)

    worked = time.process_time()
    first = push(releases.workspace, store, settings)
    worked = time.process_time() - worked
    result: dict[str, object] = {"first_rows": first.written, "first_s": round(first.seconds, 2)}
    result |= {"first_per_s": round(first.written / first.seconds), "first_cpu_s": round(worked, 2)}
    result |= {
        f"reads: {name}": each for name, each in timed_reads({"ours": read, "peer": peer}, releases, reads).items()
    }
    drawn = releases.publish(0.1)
    during: list[float] = []
    ended = threading.Event()
    chance, items = random.Random(3), releases.ids("item_features")

    def read_on() -> None:
        while not ended.is_set():
            start = time.perf_counter()
            read("u1", chance.sample(items, ITEMS_OF_A_READ))
            during.append(time.perf_counter() - start)

    thread = threading.Thread(target=read_on)
    thread.start()
    second = push(releases.workspace, store, settings)
    ended.set()
    thread.join()
    assert second.written == drawn
    result |= {"changed_rows": second.written, "changed_s": round(second.seconds, 2)}
    result["reads_during_push"] = _shares(during)
    return result


def measure_peer(releases: Releases, url: str) -> tuple[dict[str, object], Read]:
    """A SET for each vector of the release; and a reader of them by MGET."""
    import redis

    client = redis.Redis.from_url(url)
    start, worked, count = time.perf_counter(), time.process_time(), 0
    for table, key in KEYS.items():
        rows = released_arrow(releases.workspace, table)
        vectors = np.stack(rows["embedding"].to_numpy())
        for one, vector in zip(rows[key].to_pylist(), vectors, strict=True):
            client.set(f"peer:{one}", vector.tobytes())
            count += 1
    seconds, worked = time.perf_counter() - start, time.process_time() - worked

    def read(user: str, items: list[str]) -> np.ndarray:
        found: Any = client.mget([f"peer:{one}" for one in (user, *items)])
        return np.frombuffer(b"".join(found), np.float32).reshape(-1, WIDTH)

    speed = {"rows": count, "s": round(seconds, 2), "per_s": round(count / seconds), "cpu_s": round(worked, 2)}
    return dict(speed), read


def main() -> None:
    """Measure each store, and the peer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--reads", type=int, default=2000)
    given = parser.parse_args()
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name, redis_server(Path(name)) as url:
        folder = Path(name)
        sizes = {"user_features": given.users, "item_features": given.items}
        releases = Releases(folder / "workspace", sizes)
        releases.publish(1.0)
        results["peer"], peer = measure_peer(releases, url)
        print("peer", results["peer"], flush=True)
        stores = {"redis float32": (url, "float32"), "redis float16": (url, "float16")}
        stores["sqlite float32"] = (f"sqlite:///{folder}/online.db", "float32")
        for store, (address, dtype) in stores.items():
            results[store] = measure_ours(releases, address, dtype, given.reads, peer)
            print(store, results[store], flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
