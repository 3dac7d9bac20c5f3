"""The point-in-time join of ``features_at`` for an Arrow table of events, without Spark."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.versions import snapshots_of
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.point_in_time import Clock, check_events, releases_at
from learn_spark.features.read import KEYS
from learn_spark.features.validity import require_files

# Events whose vectors one Arrow list has: its 32-bit offsets end at 2^31 numbers.
EVENTS_OF_A_CHUNK = 1 << 19


def features_at_arrow(workspace: Workspace, events: pa.Table, *, clock: Clock = "published") -> pa.Table:
    """``events`` [n] (columns user_id, item_id, event_time and any others) with release_id, user_embedding and
    item_embedding, as ``features_at`` gives them: the same rows in the same order.

    ``event_time`` is a timestamp, in UTC unless it has a time zone, or a date. Each file of a feature table is
    read once, however many releases have it. Events and their vectors must fit into memory, and one file besides.

    Raises LearnSparkError if a column is missing, if an added column exists already, if times are of another type, or
    if an event needs a release whose files are deleted.
    """
    check_events(events.column_names)
    micros, known = _micros(events["event_time"])
    releases, release_of = releases_at(workspace, micros, clock)
    release_of[~known] = -1
    ids = pa.array([row.release_id for row in releases], pa.string())
    joined = events.append_column("release_id", ids.take(_places(release_of)))
    for table, key in KEYS.items():
        require_files(workspace, table, releases)
        versions = sorted({row.version(table) for row in releases})
        version_of = np.array([-1, *(versions.index(row.version(table)) for row in releases)])[release_of + 1]
        snapshots = snapshots_of(workspace.table(table), versions)
        vectors = _vectors(snapshots, version_of, events[key].cast(pa.string()), key)
        joined = joined.append_column(table.replace("features", "embedding"), vectors)
    return joined


def _micros(times: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Microseconds since 1970 and whether there is a time, both [n]."""
    if not (pa.types.is_timestamp(times.type) or pa.types.is_date(times.type)):
        raise LearnSparkError(f"features_at: event_time is {times.type}; make it a timestamp")
    micros = times.cast(pa.timestamp("us", tz="UTC"), safe=False).cast(pa.int64())
    return micros.fill_null(0).to_numpy(), pc.is_valid(micros).to_numpy()


def _vectors(snapshots: list[Snapshot], version_of: np.ndarray, keys: pa.ChunkedArray, key: str) -> pa.ChunkedArray:
    """The embedding [n] of each of ``keys`` [n] in the snapshot with the number ``version_of`` [n] (-1: in none)."""
    order = np.argsort(version_of, kind="stable")
    ends = np.searchsorted(version_of[order], np.arange(-1, len(snapshots)), side="right")
    places: dict[str, list[tuple[int, int]]] = {}  # file -> (snapshot, position in its files)
    for number, snapshot in enumerate(snapshots):
        for place, file in enumerate(snapshot.files):
            places.setdefault(file, []).append((number, place))
    row_of = np.full(len(keys), -1, dtype=np.int64)  # of an event, in the rows kept
    kept, rows = [pa.array([], pa.large_list(pa.float32()))], 0
    for having in places.values():
        asking = np.concatenate([order[ends[number] : ends[number + 1]] for number, _ in having])
        asking = asking[row_of[asking] < 0]
        if not len(asking):
            continue
        number, place = having[0]
        file_rows = snapshots[number].read_file(place, [key, "embedding"])
        found = pc.index_in(keys.take(pa.array(asking)), value_set=file_rows[key]).fill_null(-1).to_numpy()
        used, place_in_used = np.unique(found[found >= 0], return_inverse=True)
        row_of[asking[found >= 0]] = rows + place_in_used
        kept += file_rows["embedding"].take(pa.array(used)).cast(kept[0].type).chunks
        rows += len(used)
    pool = pa.concat_arrays(kept)
    starts = range(0, len(row_of), EVENTS_OF_A_CHUNK)
    chunks = [pool.take(_places(row_of[start : start + EVENTS_OF_A_CHUNK])) for start in starts]
    return pa.chunked_array([chunk.cast(pa.list_(pa.float32())) for chunk in chunks], pa.list_(pa.float32()))


def _places(numbers: np.ndarray) -> pa.Array:
    """Positions for ``take``, with null for -1."""
    return pa.array(np.maximum(numbers, 0), pa.int64(), mask=numbers < 0)
