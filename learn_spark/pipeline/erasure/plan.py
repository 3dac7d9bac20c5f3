"""What an erasure deletes, and how it is shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from learn_spark.core.console import Reporter
from learn_spark.core.table_text import Cell
from learn_spark.core.tables.purge import old_files
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import LedgerRow
from learn_spark.pipeline.erasure.files import Left
from learn_spark.pipeline.erasure.tables import Found


@dataclass(frozen=True)
class Erasure:
    """What an erasure deletes: rows by table, releases that expire, files, and rows of bookkeeping that name a user."""

    users: int
    found: Found
    expiring: tuple[LedgerRow, ...] = ()
    files: tuple[Left, ...] = ()
    texts: Mapping[str, Sequence[Mapping[str, object]]] = field(default_factory=dict)
    unfinished: str | None = None

    @property
    def unknown(self) -> int:
        """Ids that no table has."""
        return self.users - self.found.known

    def deleted(self) -> dict[str, int]:
        """The counts of the audit row."""
        counts = dict(self.found.rows)
        counts |= {table: len(rows) for table, rows in self.texts.items() if rows}
        if self.expiring:
            counts["expired releases"] = len(self.expiring)
        counts |= Counter({"vocabulary": "rankers", "page": "pages", "cache": "caches"}[one.kind] for one in self.files)
        return counts


def show(plan: Erasure, workspace: Workspace, console: Reporter) -> None:
    """Print tables, releases, texts and files, with the numbers of rows and bytes."""
    rows: list[list[Cell]] = []
    for table in plan.found.tables:
        old = len(old_files(workspace.table(table)))
        count = plan.found.rows.get(table, 0)
        why = f"and {old:,} files of older versions" if count else f"only older versions have users: {old:,} files"
        rows.append(["table", table, count, "rows", why])
    rows += [["release", row.release_id, None, "", "expires: its versions are deleted"] for row in plan.expiring]
    rows += [
        ["text", table, len(found), "rows", "their text names a user, and is replaced"]
        for table, found in plan.texts.items()
        if found
    ]
    rows += [
        [one.kind, str(one.path), one.size, "values" if one.kind == "vocabulary" else "bytes", one.why]
        for one in plan.files
    ]
    console.table(
        "What the workspace has of these users", ["kind", "name", "size", "unit", "reason"], rows, name="found"
    )
    console.record("users", {"given": plan.users, "known": plan.found.known, "unknown": plan.unknown})
    if plan.unknown:
        console.line(
            f"{plan.unknown:,} of {plan.users:,} ids are in no table (refused rows apart); their events stay out from "
            "now on all the same"
        )
    if plan.unfinished:
        console.line(f"the erasure {plan.unfinished} was interrupted; give the same file, and it is completed")
