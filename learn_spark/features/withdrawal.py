"""Withdrawing releases, rolling back and restoring: each is planned first, and then written as rows of the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import (
    READABLE,
    LedgerRow,
    NoReleaseError,
    add_rows,
    current_release,
    find_release,
    in_state,
    ledger,
    release_in_force,
    states,
)


class NothingLeftError(LearnSparkError):
    """A withdrawal after which no release would be in force."""


@dataclass(frozen=True)
class Change:
    """A change of the ledger before it is written.

    ``changed``: the releases that are withdrawn or restored, newest first, as they were before. ``rows``: the rows to
    append. ``before`` and ``after``: the release in force.
    """

    changed: tuple[LedgerRow, ...]
    rows: tuple[LedgerRow, ...]
    before: LedgerRow | None
    after: LedgerRow | None

    def require_a_release(self) -> None:
        """Raise NothingLeftError if this change takes the last release out of force."""
        if self.before is not None and self.after is None:
            names = ", ".join(row.release_id for row in self.changed)
            raise NothingLeftError(
                f"nothing was withdrawn: without release {names} no release would be in force, and consumers would "
                "read nothing; publish another model first (learn-spark models lists them), or give --allow-none"
            )


def plan_withdrawal(rows: Sequence[LedgerRow], release_id: str, reason: str | None = None) -> Change:
    """The withdrawal of one release. Raises NoReleaseError if it is not readable."""
    row = find_release(rows, release_id)
    return _change(rows, [row], [in_state(row, "withdrawn", reason)])


def plan_rollback(rows: Sequence[LedgerRow], to: str | None = None, reason: str | None = None) -> Change:
    """The withdrawal of the release in force, or with ``to`` of every release newer than that one.

    Raises NoReleaseError if nothing is released, ``to`` is not readable, or no release is newer than it.
    """
    withdrawn = [current_release(rows)]
    if to is not None:
        kept = find_release(rows, to)
        released = [row for row in states(rows).values() if row.status == "released"]
        withdrawn = sorted((r for r in released if r.sequence > kept.sequence), key=lambda r: -r.sequence)
        if not withdrawn:
            raise NoReleaseError(f"release {to} is in force already")
    note = reason or ("rolled back" if to is None else f"rolled back to {to}")
    return _change(rows, withdrawn, [in_state(row, "withdrawn", note) for row in withdrawn])


def plan_restoration(rows: Sequence[LedgerRow], release_ids: Sequence[str], reason: str | None = None) -> Change:
    """The restoration of withdrawn releases, each in its place among the others: a newer release stays in force.

    The rows of newer releases are written again after those of restored ones, so that for every reader the released
    row with the highest sequence is the release in force. Raises NoReleaseError if a release is not withdrawn.
    """
    newest, order = states(rows), _order_of_publication(rows)
    for release_id in release_ids:
        if release_id not in newest or newest[release_id].status != "withdrawn":
            row = find_release(rows, release_id)
            raise NoReleaseError(
                f"release {release_id} is {row.status}, and not withdrawn: there is nothing to restore"
            )
    before = {
        row.release_id: row.status for row in sorted(rows, key=lambda row: row.sequence) if row.status in READABLE
    }
    restored = sorted((newest[name] for name in set(release_ids)), key=lambda row: -order[row.release_id])
    again = [in_state(row, before[row.release_id], reason or "restored") for row in restored]
    first = min(order[row.release_id] for row in again)
    again += [
        in_state(row, row.status, f"unchanged, written again after a restored release: {row.note or ''}".rstrip(": "))
        for row in newest.values()
        if row.status == "released" and order[row.release_id] > first
    ]
    return _change(rows, restored, sorted(again, key=lambda row: order[row.release_id]))


def apply(workspace: Workspace, change: Change) -> LedgerRow | None:
    """Write the rows of a change in one commit; the release in force now, or None. The caller must have the lock."""
    add_rows(workspace, change.rows)
    return release_in_force(ledger(workspace))


def withdraw(
    workspace: Workspace, release_id: str, reason: str | None = None, *, allow_none: bool = False
) -> tuple[LedgerRow, LedgerRow | None]:
    """Withdraw one release by a new row; (the withdrawn row, the release in force now or None).

    Raises NoReleaseError if the release is not readable, NothingLeftError if no release would be in force, unless
    ``allow_none``.
    """
    change = plan_withdrawal(ledger(workspace), release_id, reason)
    if not allow_none:
        change.require_a_release()
    return change.changed[0], apply(workspace, change)


def roll_back(
    workspace: Workspace, to: str | None = None, reason: str | None = None, *, allow_none: bool = False
) -> tuple[list[LedgerRow], LedgerRow | None]:
    """Withdraw the release in force, or with ``to`` every release newer than that one, by new rows in one commit.

    Returns (the withdrawn rows, newest first; the release in force now or None). Raises as ``plan_rollback``, and
    NothingLeftError if no release would be in force, unless ``allow_none``.
    """
    change = plan_rollback(ledger(workspace), to, reason)
    if not allow_none:
        change.require_a_release()
    return list(change.changed), apply(workspace, change)


def _order_of_publication(rows: Sequence[LedgerRow]) -> dict[str, int]:
    """release_id -> sequence of the row that published it last; a restored release keeps its place."""
    order: dict[str, int] = {}
    published: set[str] = set()
    for row in sorted(rows, key=lambda row: row.sequence):
        if row.status == "staged":
            published.discard(row.release_id)
        elif row.status in READABLE and row.release_id not in published:
            published.add(row.release_id)
            order[row.release_id] = row.sequence
    return order


def _change(rows: Sequence[LedgerRow], changed: Sequence[LedgerRow], added: Sequence[LedgerRow]) -> Change:
    last = max(row.sequence for row in rows)
    numbered = [replace(row, sequence=last + place) for place, row in enumerate(added, 1)]
    return Change(tuple(changed), tuple(added), release_in_force(rows), release_in_force([*rows, *numbered]))
