"""What is in quarantine: its rows, by reason, read without Spark."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from learn_spark.core.quality.reasons import EXAMPLE_CHARACTERS, ReasonCount, counted
from learn_spark.core.tables.snapshot import Snapshot, current_version
from learn_spark.core.tables.workspace import Workspace

COLUMNS = ["source_table", "reasons", "raw", "occurrences", "source_file", "run_id"]
BATCH_ROWS = 16_384


@dataclass(frozen=True)
class RefusedRow:
    """A row of the table quarantine; ``occurrences`` is how often one file has it."""

    table: str
    reasons: tuple[str, ...]
    raw: str
    occurrences: int
    file: str | None
    run_id: str

    def as_dict(self) -> dict[str, Any]:
        """The row as plain values, its raw row as an object."""
        return {
            "table": self.table,
            "reasons": list(self.reasons),
            "raw": json.loads(self.raw),
            "occurrences": self.occurrences,
            "file": self.file,
            "run_id": self.run_id,
        }


def refused_rows(
    workspace: Workspace, *, table: str | None = None, reason: str | None = None, file: str | None = None
) -> list[RefusedRow]:
    """The rows in quarantine, in the order of table, file and raw row.

    ``reason`` is a part of a reason, ``file`` a file or a pattern such as ``orders/*.csv``.
    """
    path = workspace.table("quarantine")
    if current_version(path) is None:
        return []
    kept = [
        refused
        for batch in Snapshot.open(path).batches(list(COLUMNS), BATCH_ROWS)
        for row in batch.to_pylist()
        if _is_asked_for(refused := _refused_row(row), table, reason, file)
    ]
    return sorted(kept, key=lambda row: (row.table, row.file or "", row.raw))


def _refused_row(row: Mapping[str, Any]) -> RefusedRow:
    return RefusedRow(
        row["source_table"], tuple(row["reasons"]), row["raw"], row["occurrences"], row["source_file"], row["run_id"]
    )


def _is_asked_for(row: RefusedRow, table: str | None, reason: str | None, file: str | None) -> bool:
    return (
        (table is None or row.table == table)
        and (reason is None or any(reason in one for one in row.reasons))
        and (file is None or fnmatchcase(row.file or "", file))
    )


def by_reason(rows: Sequence[RefusedRow]) -> dict[str, tuple[ReasonCount, ...]]:
    """Table -> its reasons, the most frequent first; a row with several reasons counts for each."""
    tables = sorted({row.table for row in rows})
    return {
        table: counted(
            (row.reasons, row.occurrences, row.raw[:EXAMPLE_CHARACTERS], row.file) for row in rows if row.table == table
        )
        for table in tables
    }
