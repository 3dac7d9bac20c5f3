"""Why rows were refused, or lost a field: rows a reason, with an example, as sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column

EXAMPLE_CHARACTERS = 200
MOST_SENTENCES = 12


@dataclass(frozen=True)
class ReasonCount:
    """Number of rows with this reason; ``example``: the start of one raw row; ``file``: the file of the example."""

    reason: str
    rows: int
    example: str
    file: str

    def sentence(self) -> str:
        """For example ``12 rows: no user_id, as in {...} (log.csv)``."""
        place = f" ({self.file})" if self.file else ""
        return f"{self.rows:,} {'row' if self.rows == 1 else 'rows'}: {self.reason}, as in {self.example}{place}"


def example_of(raw: Column) -> Column:
    """An aggregate: the start of the smallest raw row, which does not depend on the order of rows."""
    from pyspark.sql import functions as F

    return F.min(F.substring(raw, 1, EXAMPLE_CHARACTERS))


def counted(groups: Iterable[tuple[Sequence[str], int, str | None, str | None]]) -> tuple[ReasonCount, ...]:
    """Rows a reason, the most frequent first. A group is (reasons, rows, example, file); a row may have several."""
    by_reason: dict[str, list[tuple[int, str, str]]] = {}
    for reasons, rows, example, file in groups:
        for reason in reasons:
            by_reason.setdefault(reason, []).append((rows, example or "", file or ""))
    counts = []
    for reason, parts in by_reason.items():
        example, file = min((example, file) for _, example, file in parts)
        counts.append(ReasonCount(reason, sum(rows for rows, _, _ in parts), example, file))
    return tuple(sorted(counts, key=lambda count: (-count.rows, count.reason)))


def refusal_notes(table: str, read: int, refused: int, counts: Sequence[ReasonCount]) -> tuple[str, ...]:
    """Lines on the refused rows of a run; none where no row was refused."""
    if not refused:
        return ()
    head = f"refused: {refused:,} of {read:,} rows of {table} ({refused / max(read, 1):.2%}); learn-spark quarantine"
    return (f"{head} lists them", *_lines(counts))


def flaw_notes(table: str, counts: Sequence[ReasonCount]) -> tuple[str, ...]:
    """Lines on the fields that were set to null; none where there were none."""
    if not counts:
        return ()
    return (f"warning: fields of {table} that cannot be read became null, and their rows are kept:", *_lines(counts))


def _lines(counts: Sequence[ReasonCount]) -> list[str]:
    lines = [f"  {count.sentence()}" for count in counts[:MOST_SENTENCES]]
    more = counts[MOST_SENTENCES:]
    return [*lines, *([f"  and {len(more)} more reasons"] if more else [])]
