"""The exposures that a ranker reads: columns of codes in the order of time, split into train, validation and test."""

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

COLUMN_FIELDS = ("user_id", "item_id", "position")
BATCH_ROWS = 65_536


@dataclass(frozen=True)
class CodedColumn:
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
    fields: Mapping[str, CodedColumn]

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
            {name: CodedColumn(field.values, field.codes[rows]) for name, field in self.fields.items()},
        )


class _Coder:
    """Encodes a text column, a batch at a time."""

    def __init__(self) -> None:
        self._code_of: dict[str, int] = {}
        self._parts: list[np.ndarray] = []

    def add(self, column: pa.Array) -> None:
        encoded = column.cast(pa.string()).dictionary_encode()
        values = encoded.dictionary.to_pylist()
        codes = np.array(
            [self._code_of.setdefault(value, len(self._code_of)) for value in values] + [-1], dtype=np.int32
        )
        self._parts.append(codes[np.asarray(pc.fill_null(encoded.indices, -1))])

    def coded(self) -> CodedColumn:
        return CodedColumn(np.array(list(self._code_of), dtype=object), _joined(self._parts, np.int32))


def read_exposures(snapshot: Snapshot, context: Sequence[str], since: int | None = None) -> tuple[Exposures, int]:
    """(exposures at or after ``since`` microseconds, number of other rows) of one version of the table ``exposures``.

    A row of weight 0 was not shown and is no exposure. The table is read in batches; a row takes codes, its event_id
    and three numbers in memory. Raises LearnSparkError if there is no exposure, or if no exposure has one of the
    ``context`` keys.
    """
    coders = {name: _Coder() for name in (*COLUMN_FIELDS, *context)}
    ids: list[pa.Array] = []
    times, labels, weights, others, keys = [], [], [], 0, set()
    columns = ["event_id", "event_time", "converted", "weight", *COLUMN_FIELDS, "context"]
    for batch in snapshot.batches(columns, BATCH_ROWS):
        micros = np.asarray(batch["event_time"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()))
        kept = np.asarray(batch["weight"]) > 0
        if since is not None:
            kept &= micros >= since
        others += int((~kept).sum())
        batch = batch.filter(pa.array(kept))
        ids.append(batch["event_id"])
        times.append(micros[kept])
        labels.append(np.asarray(batch["converted"].cast(pa.int8())))
        weights.append(np.asarray(batch["weight"]))
        keys.update(pc.unique(batch["context"].keys).to_pylist())
        for name, coder in coders.items():
            is_column = name in COLUMN_FIELDS
            coder.add(batch[name] if is_column else pc.map_lookup(batch["context"], pa.scalar(name), "first"))
    exposures = Exposures(
        pa.concat_arrays(ids) if ids else pa.array([], pa.string()),
        _joined(times, np.int64),
        _joined(labels, np.int8),
        _joined(weights, np.float64),
        {name: coder.coded() for name, coder in coders.items()},
    )
    if not len(exposures):
        raise LearnSparkError(
            f"rank_ads: none of {others:,} rows of {snapshot.path} @ {snapshot.version} is an exposure (weight above 0)"
            + ("" if since is None else " at or after the start (ranking.since, or where the test began)")
        )
    if missing := [name for name in context if not len(exposures.fields[name].values)]:
        raise LearnSparkError(
            f"rank_ads: no exposure has the context {', '.join(missing)} that ranking.context names; there are "
            f"{', '.join(sorted(keys)) or 'none'}"
        )
    order = pc.sort_indices(
        pa.table({"time": exposures.time, "event_id": exposures.event_id}),
        [("time", "ascending"), ("event_id", "ascending")],
    )
    return exposures.take(np.asarray(order).astype(np.int64)), others


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
    """The split of ``time`` [n], ascending: at the settings' two times, or else by their shares of the rows.

    Exposures of one instant are on one side, the later. Raises LearnSparkError if a part would be empty.
    """
    if settings.validation_from is not None and settings.test_from is not None:
        split = Split(as_micros(settings.validation_from), as_micros(settings.test_from))
    else:
        shares = (settings.train_share, settings.train_share + settings.validation_share)
        first, second = (min(round(len(time) * share), len(time) - 1) for share in shares)
        split = Split(int(time[first]), int(time[second]))
    sizes = {name: int(mask.sum()) for name, mask in split.masks(time).items()}
    if not all(sizes.values()):
        parts = ", ".join(f"{size:,} for {name}" for name, size in sizes.items())
        raise LearnSparkError(
            f"rank_ads: {len(time):,} exposures cannot be split by time: {parts}. Those of one instant stay together; "
            "change ranking.train_share and validation_share, or validation_from and test_from"
        )
    return split


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)
