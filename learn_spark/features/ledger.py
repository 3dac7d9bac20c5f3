"""The ``releases`` table as an append-only ledger: the newest row of a release is its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import append_rows, check_columns, read_rows, table_lock
from learn_spark.core.tables.runs import new_run_id
from learn_spark.core.tables.workspace import Workspace

# States of a readable release; a backfilled one is read only by its id or as of a time.
READABLE = ("released", "backfilled")
STATES = (*READABLE, "withdrawn", "expired")
NOT_WRITTEN = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class LedgerRow:
    """One row of ``releases``: a release in one state (schemas/releases.yaml describes the fields).

    ``sequence`` and ``written_at`` are set when the row is written.
    """

    release_id: str
    status: str
    model_id: str
    code_version: str
    encoder_key: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    gate_results: str | None
    metrics: Mapping[str, float]
    as_of: datetime
    run_id: str
    note: str | None
    sequence: int = 0
    written_at: datetime = NOT_WRITTEN

    def version(self, table: str) -> int:
        """The version of a feature table in the release; ValueError while it is staged or refused."""
        return int(self.outputs[table])


class NoReleaseError(LearnSparkError):
    """No release fits the request."""


def ledger(workspace: Workspace) -> list[LedgerRow]:
    """All rows of ``releases`` in the order of writing.

    Raises ContractError if the table was written by an incompatible version.
    """
    path = workspace.table("releases")
    check_columns(path, contract("releases"))
    return sorted((LedgerRow(**row) for row in read_rows(path)), key=lambda row: row.sequence)


def states(rows: Sequence[LedgerRow]) -> dict[str, LedgerRow]:
    """release_id -> its newest row that is neither staged nor refused; without releases that have no such row."""
    newest: dict[str, LedgerRow] = {}
    for row in sorted(rows, key=lambda row: row.sequence):
        if row.status in STATES:
            newest[row.release_id] = row
    return newest


def current_release(rows: Sequence[LedgerRow], as_of: datetime | None = None) -> LedgerRow:
    """The release in force: the newest ``released`` row of ``rows`` that no later row withdraws.

    With ``as_of`` (aware): the release with the latest as_of at or before it, backfilled releases included. A release
    that is staged and refused again stays in force. Raises NoReleaseError if there is none.
    """
    readable = ("released",) if as_of is None else READABLE
    released = [row for row in states(rows).values() if row.status in readable]
    if not released:
        raise NoReleaseError("no release is published; run the publish stage, or see its audit if it ran")
    if as_of is not None:
        earliest = min(row.as_of for row in released)
        released = [row for row in released if row.as_of <= as_of]
        if not released:
            raise NoReleaseError(
                f"no release is as of {as_of:%Y-%m-%d %H:%M:%S} UTC or earlier; the earliest is as "
                f"of {earliest:%Y-%m-%d %H:%M:%S}"
            )
        return max(released, key=lambda row: (row.as_of, row.sequence))
    return max(released, key=lambda row: row.sequence)


def release_in_force(rows: Sequence[LedgerRow], as_of: datetime | None = None) -> LedgerRow | None:
    """``current_release``; None if there is none."""
    try:
        return current_release(rows, as_of)
    except NoReleaseError:
        return None


def find_release(rows: Sequence[LedgerRow], release_id: str) -> LedgerRow:
    """The newest row of a readable release.

    Raises NoReleaseError if it is unknown, withdrawn, expired, or was never published.
    """
    state = states(rows).get(release_id)
    if state is None:
        statuses = [row.status for row in rows if row.release_id == release_id]
        if statuses:
            raise NoReleaseError(f"release {release_id} was {statuses[-1]}, but never released")
        newest = ", ".join(list(states(rows))[-3:]) or "none"
        raise NoReleaseError(
            f"there is no release {release_id!r}; the newest are {newest} (learn-spark releases lists all)"
        )
    if state.status not in READABLE:
        raise NoReleaseError(
            f"release {release_id} was {state.status} on {state.written_at:%Y-%m-%d %H:%M} UTC"
            + (f": {state.note}" if state.note else "")
        )
    return state


def releases_in_force(
    rows: Sequence[LedgerRow],
) -> list[tuple[datetime, datetime | None, LedgerRow]]:
    """Intervals [start, end) and the release in force during each, oldest first; ``end`` is None for the last one.

    A withdrawn release was in force until its withdrawal.
    """
    ordered = sorted((row for row in rows if row.status in STATES), key=lambda row: row.sequence)
    changes: list[tuple[datetime, LedgerRow | None]] = []
    for number, row in enumerate(ordered, 1):
        now = release_in_force(ordered[:number])
        if not changes or now != changes[-1][1]:
            changes.append((row.written_at, now))
    ends = [*(when for when, _ in changes[1:]), None]
    return [(when, end, row) for (when, row), end in zip(changes, ends, strict=True) if row is not None]


def add_row(workspace: Workspace, row: LedgerRow) -> LedgerRow:
    """Append a row with the next ``sequence`` and the current ``written_at``; the row as written.

    The caller must have the workspace's lock.
    """
    return _add(workspace, [row])[0]


def withdraw(workspace: Workspace, release_id: str, reason: str | None = None) -> tuple[LedgerRow, LedgerRow | None]:
    """Withdraw one release by a new row; (the withdrawn row, the release in force now or None).

    Raises NoReleaseError if the release is not readable.
    """
    row = find_release(ledger(workspace), release_id)
    _add(workspace, [_ended(row, "withdrawn", reason)])
    return row, release_in_force(ledger(workspace))


def roll_back(
    workspace: Workspace, to: str | None = None, reason: str | None = None
) -> tuple[list[LedgerRow], LedgerRow | None]:
    """Withdraw the release in force, or with ``to`` every release newer than that one, by new rows in one commit.

    Returns (the withdrawn rows, newest first; the release in force now or None). Raises NoReleaseError if nothing is
    released, ``to`` is not readable, or no release is newer than it.
    """
    withdrawn = to_withdraw(ledger(workspace), to)
    note = reason or ("rolled back" if to is None else f"rolled back to {to}")
    _add(workspace, [_ended(row, "withdrawn", note) for row in withdrawn])
    return withdrawn, release_in_force(ledger(workspace))


def to_withdraw(rows: Sequence[LedgerRow], to: str | None = None) -> list[LedgerRow]:
    """The rows that ``roll_back`` withdraws, newest first; raises as it does."""
    newest = current_release(rows)
    if to is None:
        return [newest]
    kept = find_release(rows, to)
    released = [row for row in states(rows).values() if row.status == "released"]
    newer = sorted((r for r in released if r.sequence > kept.sequence), key=lambda r: -r.sequence)
    if not newer:
        raise NoReleaseError(f"release {to} is in force already")
    return newer


def expire(workspace: Workspace, release_ids: Sequence[str]) -> None:
    """Mark releases as expired by new rows, before their table versions are deleted."""
    newest = states(ledger(workspace))
    _add(workspace, [_ended(newest[name], "expired", "no longer kept") for name in release_ids])


def _ended(row: LedgerRow, status: str, reason: str | None) -> LedgerRow:
    return replace(row, status=status, note=reason, run_id=new_run_id())


def _add(workspace: Workspace, rows: Sequence[LedgerRow]) -> list[LedgerRow]:
    path = workspace.table("releases")
    with table_lock(path):
        last = max((row["sequence"] for row in read_rows(path)), default=0)
        now = datetime.now(UTC)
        full = [replace(row, sequence=last + place, written_at=now) for place, row in enumerate(rows, 1)]
        append_rows(path, contract("releases"), [asdict(row) for row in full])
    return full
