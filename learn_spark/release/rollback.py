"""Rolling a release back: a new row that withdraws it, so that the release before holds again. Nothing is rewritten."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from learn_spark.release.read import NoRelease, current_release
from learn_spark.tables.contracts import contract
from learn_spark.tables.lineage import new_run_id
from learn_spark.tables.log import append_rows, read_rows
from learn_spark.tables.workspace import Workspace


def roll_back(workspace: Workspace) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Withdraw the release that holds; returns it, and the one that holds now (None: nothing is released any more).

    Raises NoRelease where nothing is released.
    """
    path = workspace.table("releases")
    rows = read_rows(path)
    withdrawn = current_release(rows)
    row = {
        **withdrawn,
        "status": "withdrawn",
        "sequence": max(row["sequence"] for row in rows) + 1,
        "written_at": datetime.now(UTC),
        "run_id": new_run_id(),
    }
    append_rows(path, contract("releases"), [row])
    try:
        return withdrawn, current_release(read_rows(path))
    except NoRelease:
        return withdrawn, None
