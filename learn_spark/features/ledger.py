"""The ``releases`` table as an append-only ledger: the newest row of a release is its state."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import append_depending, check_columns, read_rows
from learn_spark.core.tables.runs import new_run_id
from learn_spark.core.tables.workspace import Workspace

# States of a readable release; a backfilled one is read only by its id or as of a time.
READABLE = ("released", "backfilled")
STATES = (*READABLE, "withdrawn", "expired")
RELEASED_FILE = "released.json"
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
        raise NoReleaseError(_nothing_released(rows))
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


def _nothing_released(rows: Sequence[LedgerRow]) -> str:
    """The sentence for a ledger without a released row: why there is none, and the command that helps."""
    newest = states(rows)
    withdrawn = [row for row in newest.values() if row.status == "withdrawn"]
    if withdrawn:
        last = max(withdrawn, key=lambda row: row.sequence)
        return f"no release is in force: all were withdrawn; learn-spark restore {last.release_id} brings the last back"
    if not newest and any(row.status == "refused" for row in rows):
        return "no release is in force: the audit refused every release; learn-spark show ID lists the broken rules"
    return "no release is in force: learn-spark publish makes one"


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
            + (f"; learn-spark restore {release_id} brings it back" if state.status == "withdrawn" else "")
        )
    return state


def releases_in_force(
    rows: Sequence[LedgerRow],
) -> list[tuple[datetime, datetime | None, LedgerRow]]:
    """Intervals [start, end) and the release in force during each, oldest first; ``end`` is None for the last one.

    A withdrawn release was in force until its withdrawal. The versions are those that a release has now: an erasure of
    users gives the release in force new ones.
    """
    ordered = sorted((row for row in rows if row.status in STATES), key=lambda row: row.sequence)
    changes: list[tuple[datetime, LedgerRow | None]] = []
    newest: dict[str, LedgerRow] = {}
    released: list[LedgerRow] = []  # by sequence; the last one is in force
    for row in ordered:
        newest[row.release_id] = row
        if row.status == "released":
            released.append(row)
        while released and newest[released[-1].release_id] is not released[-1]:
            released.pop()
        now = released[-1] if released else None
        if not changes or now != changes[-1][1]:
            changes.append((row.written_at, now))
    if not changes:
        return []
    ends = [*(when for when, _ in changes[1:]), None]
    return [
        (when, end, replace(row, outputs=newest[row.release_id].outputs))
        for (when, row), end in zip(changes, ends, strict=True)
        if row is not None
    ]


def add_row(workspace: Workspace, row: LedgerRow) -> LedgerRow:
    """Append a row with the next ``sequence`` and the current ``written_at``; the row as written.

    The caller must have the workspace's lock.
    """
    return add_rows(workspace, [row])[0]


def expire(workspace: Workspace, release_ids: Sequence[str]) -> None:
    """Mark releases as expired by new rows, before their table versions are deleted."""
    newest = states(ledger(workspace))
    add_rows(workspace, [in_state(newest[name], "expired", "no longer kept") for name in release_ids])


def in_state(row: LedgerRow, status: str, reason: str | None) -> LedgerRow:
    """A new row of the same release in another state, not written yet."""
    return replace(row, status=status, note=reason, run_id=new_run_id())


def add_rows(workspace: Workspace, rows: Sequence[LedgerRow]) -> list[LedgerRow]:
    """Append rows in one commit, then write released.json; the rows as written. The caller must have the lock."""
    path = workspace.table("releases")

    def numbered() -> list[dict[str, object]]:
        last = max((row["sequence"] for row in read_rows(path, ["sequence"])), default=0)
        now = datetime.now(UTC)
        return [asdict(replace(row, sequence=last + place, written_at=now)) for place, row in enumerate(rows, 1)]

    written = [LedgerRow(**row) for row in append_depending(path, contract("releases"), numbered)]
    write_released(workspace, release_in_force(ledger(workspace)))
    return written


def write_released(workspace: Workspace, row: LedgerRow | None) -> None:
    """Write tables/released.json: the release in force (None: no release is), for readers without this package.

    It appears by rename, so that a reader never sees a part of it.
    """
    content: dict[str, object] = {"release_id": None, "tables": {}}
    if row is not None:
        tables = {name: {"path": name, "version": int(version)} for name, version in sorted(row.outputs.items())}
        content = {
            "release_id": row.release_id,
            "model_id": row.model_id,
            "as_of": row.as_of.isoformat(),
            "released_at": row.written_at.isoformat(),
            "sequence": row.sequence,
            "tables": tables,
        }
    (workspace.place / "tables" / RELEASED_FILE).write_text(json.dumps(content, indent=2) + "\n")
