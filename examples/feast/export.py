"""The releases of a workspace as two Parquet files that Feast reads: python export.py WORKSPACE FOLDER

A row says from when on an id had a vector. A release that follows another writes the rows that differ. An id that it
does not have gets a row without a vector: otherwise Feast would go on to give the vector of an earlier release.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import LedgerRow, ledger, releases_in_force, states

KEYS = {"user_features": "user_id", "item_features": "item_id"}
# At the very instant of a publication learn-spark still serves the release before; Feast would serve the new one.
LATER = timedelta(microseconds=1)


def history(workspace: Workspace, table: str) -> pa.Table:
    """Columns id, embedding (null: none from then on) and served_from, of all times at which a release was in force."""
    key = KEYS[table]
    empty = pa.table({key: pa.array([], pa.string()), "embedding": pa.array([], pa.list_(pa.float32()))})
    parts, before = [], empty
    for time, release in _states(workspace):
        now = empty
        if release is not None:
            place = workspace.table(table)
            now = Snapshot.open(place, release.version(table)).to_arrow([key, "embedding"]).combine_chunks()
        new = now.filter(pa.array(_differs(now, before, key)))
        gone = before[key].filter(pc.invert(pc.is_in(before[key], value_set=now[key])))
        none = pa.nulls(len(gone), pa.list_(pa.float32()))
        for ids, vectors in ((new[key], new["embedding"]), (gone, none)):
            times = pa.array([time + LATER] * len(ids), pa.timestamp("us", "UTC"))
            vectors = vectors.cast(pa.list_(pa.float32()))
            parts.append(pa.table({key: ids.cast(pa.string()), "embedding": vectors, "served_from": times}))
        before = now
    return pa.concat_tables(parts)


def _states(workspace: Workspace) -> list[tuple[datetime, LedgerRow | None]]:
    """The times at which another release came into force, or none, oldest first. One that expired has no rows."""
    rows, found = ledger(workspace), []
    now, last = states(rows), None
    for start, end, release in releases_in_force(rows):
        if last is not None and last < start:
            found.append((last, None))
        found.append((start, None if now[release.release_id].status == "expired" else release))
        last = end
    return found if last is None else [*found, (last, None)]


def _differs(now: pa.Table, before: pa.Table, key: str) -> np.ndarray:
    """Which rows of ``now`` have another vector than ``before``, or are new."""
    place = pc.index_in(now[key], value_set=before[key]).fill_null(-1).to_numpy()
    known = np.flatnonzero(place >= 0)
    differs = np.ones(len(now), dtype=bool)
    if len(known):
        new, old = (
            np.stack(table["embedding"].take(pa.array(rows)).to_numpy())
            for table, rows in ((now, known), (before, place[known]))
        )
        differs[known] = True if new.shape != old.shape else (new != old).any(axis=1)
    return differs


def main(workspace: str, folder: str) -> None:
    """Write FOLDER/user_features.parquet and FOLDER/item_features.parquet."""
    where = Workspace.open(workspace)
    if not _states(where):
        sys.exit(f"error: {workspace} has no release yet; learn-spark publish makes one")
    Path(folder).mkdir(parents=True, exist_ok=True)
    for table in KEYS:
        rows = history(where, table)
        pq.write_table(rows, Path(folder, f"{table}.parquet"))
        print(f"{folder}/{table}.parquet: {rows.num_rows:,} rows")


if __name__ == "__main__":
    main(*sys.argv[1:])
