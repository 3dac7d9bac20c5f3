"""Why rows were refused, by table and reason, counted without keeping the rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from learn_spark.core.tables.snapshot import Snapshot, current_version
from learn_spark.core.tables.workspace import Workspace

BATCH_ROWS = 65_536
SHOWN = 20  # reasons


@dataclass(frozen=True)
class Refusals:
    """``reasons``: (table, reason, rows), the most frequent first, at most ``SHOWN`` of ``of_reasons``.

    A row with several reasons counts for each, so ``rows`` can be fewer than their sum.
    """

    reasons: tuple[tuple[str, str, int], ...]
    of_reasons: int
    rows: int


def refusals(workspace: Workspace) -> Refusals | None:
    """The rows in quarantine; None where there are none."""
    path = workspace.table("quarantine")
    if current_version(path) is None:
        return None
    counts: Counter[tuple[str, str]] = Counter()
    rows = 0
    for batch in Snapshot.open(path).batches(["source_table", "reasons", "occurrences"], BATCH_ROWS):
        for row in batch.to_pylist():
            rows += row["occurrences"]
            for reason in row["reasons"]:
                counts[row["source_table"], reason] += row["occurrences"]
    if not rows:
        return None
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return Refusals(tuple((*key, count) for key, count in ordered[:SHOWN]), len(ordered), rows)
