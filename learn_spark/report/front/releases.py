"""The releases of a workspace as lines, newest first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from learn_spark.core.tables.snapshot import Snapshot, SnapshotError
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import READABLE, LedgerRow, release_in_force
from learn_spark.features.read import KEYS

SHOWN = 20
SHOWN_METRICS = ("NDCG@10", "HR@10")


@dataclass(frozen=True)
class ReleaseLine:
    """A release in its newest state. ``sizes``: rows of KEYS; ``metrics``: SHOWN_METRICS on validation; None: none."""

    release_id: str
    status: str
    in_force: bool
    as_of: datetime
    since: datetime
    model_id: str
    metrics: tuple[float | None, ...]
    sizes: tuple[int | None, ...]
    note: str


def release_lines(workspace: Workspace, rows: Sequence[LedgerRow]) -> list[ReleaseLine]:
    """The newest ``SHOWN`` releases of the ledger ``rows``; rows of a version that is gone are None."""
    current = release_in_force(rows)
    newest = {row.release_id: row for row in sorted(rows, key=lambda row: row.sequence)}
    ordered = sorted(newest.values(), key=lambda row: -row.sequence)[:SHOWN]
    return [
        ReleaseLine(
            release_id=row.release_id,
            status=row.status,
            in_force=current is not None and row.release_id == current.release_id,
            as_of=row.as_of,
            since=row.written_at,
            model_id=row.model_id,
            metrics=tuple(_finite(row.metrics.get(name)) for name in SHOWN_METRICS),
            sizes=tuple(_rows(workspace, row, table) for table in KEYS),
            note=row.note or "",
        )
        for row in ordered
    ]


def _rows(workspace: Workspace, row: LedgerRow, table: str) -> int | None:
    if row.status not in READABLE or not row.outputs.get(table, "").isdecimal():
        return None
    try:
        return Snapshot.open(workspace.table(table), row.version(table)).rows
    except SnapshotError:
        return None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
