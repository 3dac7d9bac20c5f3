"""Tables written by hand, without a JVM, for what only reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa
from deltalake import write_deltalake

from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import LedgerRow

DAY = 86_400_000_000
FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)


def plant(
    workspace: Workspace,
    table: str,
    rows: Sequence[Mapping[str, Any] | LedgerRow],
    mode: Literal["append", "overwrite"] = "append",
) -> str:
    """Append rows under the table's contract (columns and types; no constraints), or replace all; the new version."""
    data = pa.Table.from_pylist(
        [asdict(row) if isinstance(row, LedgerRow) else dict(row) for row in rows],
        schema=contract(table).arrow_schema(),
    )
    write_deltalake(workspace.table(table), data, mode=mode)
    return str(current_version(workspace.table(table)))


def history_row(
    user: str, items: Sequence[int], *, chunk: int = 0, first_day: int = 0, width: int = 8
) -> dict[str, Any]:
    """A row of user_histories under leave_last_out: one event a day from ``first_day`` on (days since 2024)."""
    start = int(FIRST_DAY.timestamp() * 1e6) + first_day * DAY
    padding = [0] * (width - len(items))
    return {
        "user_id": user,
        "chunk": chunk,
        "item_index": [*items, *padding],
        "event_time": [*(start + DAY * day for day in range(len(items))), *padding],
        "weight": [*(1.0 for _ in items), *(0.0 for _ in padding)],
        "length": len(items),
        "train_end": 0,
        "train_length": max(0, len(items) - 2) if chunk == 0 else len(items),
        "validation_length": max(0, len(items) - 1) if chunk == 0 else len(items),
        "n_events": len(items),
    }


def release_row(sequence: int, release: str, status: str, as_of: datetime, **more: Any) -> LedgerRow:
    """A row of releases; ``more`` replaces what it is made of."""
    row: dict[str, Any] = {
        "release_id": release,
        "sequence": sequence,
        "status": status,
        "model_id": "m",
        "code_version": "0.1.0+abc",
        "encoder_key": "e",
        "inputs": {},
        "outputs": {},
        "gate_results": None,
        "metrics": {},
        "as_of": as_of,
        "written_at": as_of,
        "run_id": "r",
        "note": None,
    }
    return LedgerRow(**(row | more))
