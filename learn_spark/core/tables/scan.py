"""Selective reads of a large Delta table without a JVM."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace


def scan(
    workspace: Workspace,
    table: str,
    version: int | None = None,
    *,
    where: pc.Expression | None = None,
    columns: list[str] | None = None,
) -> pa.Table:
    """The rows of a table at ``version`` (None: the newest) that satisfy ``where``, in no defined order.

    Files and row groups whose statistics exclude ``where`` are not read. Raises SnapshotError as ``Snapshot.open``.
    """
    snapshot = Snapshot.open(workspace.table(table), version)
    if not snapshot.files:
        schema = contract(table).arrow_schema()
        return schema.empty_table() if columns is None else schema.empty_table().select(columns)
    return snapshot.dataset().to_table(columns=columns, filter=where)
