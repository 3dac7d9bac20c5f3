"""The exposures that a ranker reads: columns of codes in the order of time, cut into train, validation and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.ads import RankingSettings
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.times import as_micros

OWN_FIELDS = ("user_id", "item_id", "position")
BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Coded:
    """A column of text as ``codes`` [n] into ``values`` [k], all different; -1 is null."""

    values: np.ndarray
    codes: np.ndarray


@dataclass(frozen=True)
class Exposures:
    """One row an exposure, in the order (event_time, event_id).

    ``event_id`` [n], ``time`` [n] microseconds since 1970, ``label`` [n] 0 or 1, ``weight`` [n] how many exposures the
    row stands for, ``fields`` user_id, item_id, position and every context key, each [n].
    """

    event_id: pa.StringArray
    time: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    fields: Mapping[str, Coded]

    def __len__(self) -> int:
        return len(self.time)

    def take(self, rows: np.ndarray) -> Exposures:
        """The exposures at ``rows`` (positions, or a mask), in that order; the fields keep their values."""
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        return Exposures(
            self.event_id.take(pa.array(rows)),
            self.time[rows],
            self.label[rows],
            self.weight[rows],
            {name: Coded(field.values, field.codes[rows]) for name, field in self.fields.items()},
        )


class _Coder:
    """Text into codes, a batch at a time."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._parts: list[np.ndarray] = []

    def add(self, column: pa.Array) -> None:
        encoded = column.cast(pa.string()).dictionary_encode()
        values = encoded.dictionary.to_pylist()
        mine = np.array([self._known.setdefault(value, len(self._known)) for value in values] + [-1], dtype=np.int32)
        self._parts.append(mine[np.asarray(pc.fill_null(encoded.indices, -1))])

    def coded(self) -> Coded:
        return Coded(np.array(list(self._known), dtype=object), _joined(self._parts, np.int32))


def read_exposures(snapshot: Snapshot, context: Sequence[str], since: int | None = None) -> tuple[Exposures, int]:
    """(exposures at or after ``since`` microseconds, rows that were none or earlier) of one version of ``exposures``.

    A row of weight 0 was not shown and is no exposure. Read in batches: what stays of a row are codes, its event_id and
    three numbers. Raises LearnSparkError where none is left, or none of them has one of the ``context`` keys.
    """
    coders = {name: _Coder() for name in (*OWN_FIELDS, *context)}
    ids: list[pa.Array] = []
    times, labels, weights, left, keys = [], [], [], 0, set()
    columns = ["event_id", "event_time", "converted", "weight", *OWN_FIELDS, "context"]
    for batch in snapshot.batches(columns, BATCH_ROWS):
        micros = np.asarray(batch["event_time"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()))
        kept = np.asarray(batch["weight"]) > 0
        if since is not None:
            kept &= micros >= since
        left += int((~kept).sum())
        batch = batch.filter(pa.array(kept))
        ids.append(batch["event_id"])
        times.append(micros[kept])
        labels.append(np.asarray(batch["converted"].cast(pa.int8())))
        weights.append(np.asarray(batch["weight"]))
        keys.update(pc.unique(batch["context"].keys).to_pylist())
        for name, coder in coders.items():
            own = name in OWN_FIELDS
            coder.add(batch[name] if own else pc.map_lookup(batch["context"], pa.scalar(name), "first"))
    found = Exposures(
        pa.concat_arrays(ids) if ids else pa.array([], pa.string()),
        _joined(times, np.int64),
        _joined(labels, np.int8),
        _joined(weights, np.float64),
        {name: coder.coded() for name, coder in coders.items()},
    )
    if not len(found):
        raise LearnSparkError(
            f"rank_ads: none of {left:,} rows of {snapshot.path} @ {snapshot.version} is an exposure (weight above 0)"
            + ("" if since is None else " at or after the time asked for (ranking.since, or where the test began)")
        )
    if missing := [name for name in context if not len(found.fields[name].values)]:
        raise LearnSparkError(
            f"rank_ads: no exposure has the context {', '.join(missing)} that ranking.context names; there are "
            f"{', '.join(sorted(keys)) or 'none'}"
        )
    order = pc.sort_indices(
        pa.table({"time": found.time, "event_id": found.event_id}),
        [("time", "ascending"), ("event_id", "ascending")],
    )
    return found.take(np.asarray(order).astype(np.int64)), left


@dataclass(frozen=True)
class Split:
    """Exposures before ``validation_from`` train, those before ``test_from`` validate, the rest is the test; both are
    microseconds since 1970.
    """

    validation_from: int
    test_from: int

    def masks(self, time: np.ndarray) -> dict[str, np.ndarray]:
        """train, validation and test: which of ``time`` [n] belong to each, [n] bool."""
        train, test = time < self.validation_from, time >= self.test_from
        return {"train": train, "validation": ~train & ~test, "test": test}


def split_by_time(time: np.ndarray, settings: RankingSettings) -> Split:
    """Where to cut ``time`` [n], rising: at the settings' two times, or else by their shares of the rows. Exposures of
    one instant are on one side, the later.

    Raises LearnSparkError where a part would be empty.
    """
    if settings.validation_from is not None and settings.test_from is not None:
        split = Split(as_micros(settings.validation_from), as_micros(settings.test_from))
    else:
        shares = (settings.train_share, settings.train_share + settings.validation_share)
        first, second = (min(round(len(time) * share), len(time) - 1) for share in shares)
        split = Split(int(time[first]), int(time[second]))
    sizes = {name: int(mask.sum()) for name, mask in split.masks(time).items()}
    if not all(sizes.values()):
        told = ", ".join(f"{size:,} for {name}" for name, size in sizes.items())
        raise LearnSparkError(
            f"rank_ads: {len(time):,} exposures cannot be cut by time: {told}. Those of one instant stay together; "
            "change ranking.train_share and validation_share, or validation_from and test_from"
        )
    return split


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)
