"""Released vectors of exposures, joined point in time: one row an entity and release, referred to by row number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.ads.rankers.exposures import Exposures
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.ragged import fixed_lists
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from learn_spark.core.times import from_micros
from learn_spark.features.ledger import LedgerRow
from learn_spark.features.point_in_time import Clock, releases_at
from learn_spark.features.read import KEYS

BATCH_ROWS = 16_384
MASKED = 0


@dataclass(frozen=True)
class Features:
    """``vectors`` [1 + R, D] float32, of which row MASKED is zero; ``user`` and ``item`` [n] int32: the rows that each
    exposure reads, MASKED where it has none. ``release`` [n]: its place in ``releases``, -1 before every release.
    """

    vectors: np.ndarray
    user: np.ndarray
    item: np.ndarray
    release: np.ndarray
    releases: list[LedgerRow]

    @property
    def dims(self) -> int:
        """Width of a vector; 0 where no exposure has a release."""
        return int(self.vectors.shape[1])

    def take(self, mask: np.ndarray) -> Features:
        """The exposures in ``mask`` [n] bool; vectors and releases are shared."""
        return Features(self.vectors, self.user[mask], self.item[mask], self.release[mask], self.releases)

    @property
    def model_ids(self) -> list[str]:
        """The towers whose vectors the exposures read."""
        return sorted({row.model_id for row in self.releases})

    def moments(self) -> np.ndarray:
        """As-of times of the releases [R] in microseconds since 1970."""
        return np.array([round(row.as_of.timestamp() * 1_000_000) for row in self.releases], dtype=np.int64)


def features_of(workspace: Workspace, exposures: Exposures, clock: Clock, *, needed: bool = True) -> Features:
    """The features that consumers could read at the time of each exposure, by ``point_in_time.features_at``'s rule.

    An exposure never reads a release from after it. Only entities that exposures of a release name are read from it;
    with ``needed`` False no vector is.

    Raises LearnSparkError where no exposure has a release, and where exposures would read releases of different towers,
    whose vector spaces differ.
    """
    rows, place = releases_at(workspace, exposures.time, clock)
    rows_of = {table: np.full(len(exposures), MASKED, dtype=np.int32) for table in KEYS}
    if not needed:
        nothing = np.zeros((1, 0), np.float32)
        return Features(nothing, rows_of["user_features"], rows_of["item_features"], place, rows)
    _check_releases(exposures, rows, clock)
    parts: list[np.ndarray] = []
    first = MASKED + 1
    for number, row in enumerate(rows):
        in_release = place == number
        for table, key in KEYS.items():
            field = exposures.fields[key]
            snapshot = Snapshot.open(workspace.table(table), row.version(table))
            codes, vectors = _vectors(snapshot, key, field.values, np.unique(field.codes[in_release]))
            at = np.full(len(field.values), MASKED, dtype=np.int32)
            at[codes] = first + np.arange(len(codes))
            rows_of[table][in_release] = at[field.codes[in_release]]
            parts += vectors
            first += len(codes)
    none = np.zeros((1, parts[0].shape[1] if parts else 0), np.float32)
    return Features(np.concatenate([none, *parts]), rows_of["user_features"], rows_of["item_features"], place, rows)


def _check_releases(exposures: Exposures, rows: list[LedgerRow], clock: Clock) -> None:
    if not rows:
        first, last = (from_micros(int(exposures.time[at])) for at in (0, -1))
        other = "as_of" if clock == "published" else "published"
        raise LearnSparkError(
            f"rank_ads: by the clock {clock} no release is from before any exposure ({first:%Y-%m-%d %H:%M:%S} to "
            f"{last:%Y-%m-%d %H:%M:%S} UTC). Train and publish with histories.as_of before the exposures to rank "
            f"(learn-spark releases lists what there is), or set ranking.clock: {other}"
        )
    towers = {row.model_id for row in rows}
    if len(towers) > 1:
        releases = "; ".join(f"{r.release_id} as of {r.as_of:%Y-%m-%d} by model {r.model_id}" for r in rows)
        raise LearnSparkError(
            f"rank_ads: by the clock {clock} the exposures would read vectors of {len(towers)} towers, which are not "
            f"in one space: {releases}. Rank exposures of one tower's time, or publish the past by one tower "
            "(learn-spark backfill) and set ranking.clock: as_of"
        )


def _vectors(
    snapshot: Snapshot, key: str, values: np.ndarray, requested: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """(codes, their vectors in that order) of those ``requested`` codes of ``values`` that the snapshot has."""
    names = pa.array(values[requested].tolist(), pa.string())
    codes, vectors = [np.zeros(0, dtype=np.int64)], []
    for batch in snapshot.batches([key, "embedding"], BATCH_ROWS):
        place = pc.index_in(batch[key], names)
        present = pc.is_valid(place)
        if pc.any(present).as_py():
            codes.append(requested[np.asarray(place.filter(present))])
            vectors.append(fixed_lists(pa.chunked_array([batch["embedding"].filter(present)])).astype(np.float32))
    return np.concatenate(codes), vectors
