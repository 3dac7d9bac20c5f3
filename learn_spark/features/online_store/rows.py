"""The rows that a push writes: all of a release, or what changed since another one, always in the same order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.core.ragged import fixed_lists
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.change_feed import CHANGE
from learn_spark.features.change_feed_arrow import changes_arrow
from learn_spark.features.ledger import LedgerRow
from learn_spark.features.online_store.layout import TABLES, as_bytes
from learn_spark.features.online_store.store import Entity, Row, Sign
from learn_spark.features.read import KEYS

VECTOR = "embedding"


class AllRows:
    """Every row of a release, read file after file."""

    def __init__(self, workspace: Workspace, release: LedgerRow, dtype: str) -> None:
        self.dtype = dtype
        self.snapshots = snapshots_of(workspace, release)
        self.total = sum(snapshot.rows for snapshot in self.snapshots.values())

    def batches(self, rows: int) -> Iterator[list[Row]]:
        """The rows, at most ``rows`` at a time."""
        for kind, snapshot in self.snapshots.items():
            key = KEYS[TABLES[kind]]
            for batch in snapshot.batches([key, VECTOR], rows):
                yield _rows(kind, pa.Table.from_batches([batch]), key, self.dtype)


class ChangedRows:
    """What a store that has the release ``since`` must change to have ``until``. All changes are in memory.

    Raises LearnSparkError as ``changes_arrow``.
    """

    def __init__(self, workspace: Workspace, since: str, until: str, dtype: str) -> None:
        self.dtype = dtype
        self.changes: dict[Any, pa.Table] = {}
        for kind, table in TABLES.items():
            changed = changes_arrow(workspace, table, since, until=until)
            self.changes[kind] = changed.select([KEYS[table], VECTOR, CHANGE]).sort_by(KEYS[table])
        self.total = sum(changed.num_rows for changed in self.changes.values())

    def batches(self, rows: int) -> Iterator[list[Row]]:
        """The changes, at most ``rows`` at a time."""
        for kind, changed in self.changes.items():
            for start in range(0, changed.num_rows, rows):
                yield _rows(kind, changed.slice(start, rows), KEYS[TABLES[kind]], self.dtype)

    def entities(self, rows: int) -> Iterator[list[Entity]]:
        """The changed entities, at most ``rows`` at a time."""
        for kind, changed in self.changes.items():
            for start in range(0, changed.num_rows, rows):
                yield [Entity(kind, one) for one in changed[KEYS[TABLES[kind]]].slice(start, rows).to_pylist()]


def kept_rows(workspace: Workspace, release: LedgerRow, rows: int) -> Iterator[list[Row]]:
    """Every entity of a release without its vector, at most ``rows`` at a time."""
    for kind, snapshot in snapshots_of(workspace, release).items():
        for batch in snapshot.batches([KEYS[TABLES[kind]]], rows):
            yield [(Entity(kind, one), Sign.KEPT) for one in batch.column(0).to_pylist()]


def snapshots_of(workspace: Workspace, release: LedgerRow) -> dict[Any, Snapshot]:
    """The tables of a release by kind of entity, items first."""
    return {kind: Snapshot.open(workspace.table(table), release.version(table)) for kind, table in TABLES.items()}


def lengths_of(workspace: Workspace, release: LedgerRow) -> dict[str, int]:
    """The length of a vector by kind of entity; 0 where a release has none."""
    lengths = {}
    for kind, snapshot in snapshots_of(workspace, release).items():
        batch = next(snapshot.batches([VECTOR], 1), None)
        lengths[str(kind)] = 0 if batch is None else len(batch.column(0)[0])
    return lengths


def _rows(kind: Any, table: pa.Table, key: str, dtype: str) -> list[Row]:
    entities = [Entity(kind, one) for one in table[key].to_pylist()]
    there = pc.is_valid(table[VECTOR])
    vectors = iter(as_bytes(fixed_lists(table[VECTOR].filter(there)), dtype))
    return [
        (entity, next(vectors) if valid else Sign.DELETED)
        for entity, valid in zip(entities, there.to_pylist(), strict=True)
    ]
