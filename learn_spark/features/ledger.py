"""The ``releases`` table as a ledger: rows are only appended; the newest row of a release is its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import append_rows, check_columns, read_rows
from learn_spark.core.tables.runs import new_run_id
from learn_spark.core.tables.workspace import Workspace

# States that may be read; a backfilled release only by its id or as of a time.
READABLE = ("released", "backfilled")
STATES = (*READABLE, "withdrawn", "expired")


class NoReleaseError(LearnSparkError):
    """No release fits the request."""


def ledger(workspace: Workspace) -> list[dict[str, Any]]:
    """All rows of ``releases`` in the order of writing.

    Raises ContractError if the table was written by an incompatible version.
    """
    path = workspace.table("releases")
    check_columns(path, contract("releases"))
    return sorted(read_rows(path), key=lambda row: row["sequence"])


def states(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """release_id -> its newest row that is neither staged nor refused; releases without such a row are left out."""
    newest: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["sequence"]):
        if row["status"] in STATES:
            newest[row["release_id"]] = dict(row)
    return newest


def current_release(rows: Sequence[Mapping[str, Any]], as_of: datetime | None = None) -> dict[str, Any]:
    """The release in force: of all ``rows`` the newest ``released`` row that no later row withdrew.

    With ``as_of`` (aware): the release with the latest as_of that is not after it, backfilled ones included. A release
    that is staged again, and refused then, stays in force. Raises NoReleaseError where there is none.
    """
    wanted = ("released",) if as_of is None else READABLE
    released = [row for row in states(rows).values() if row["status"] in wanted]
    if not released:
        raise NoReleaseError("nothing is released; run the publish stage, or see its gate if it ran")
    if as_of is not None:
        earliest = min(row["as_of"] for row in released)
        released = [row for row in released if row["as_of"] <= as_of]
        if not released:
            raise NoReleaseError(
                f"no release is as of {as_of:%Y-%m-%d %H:%M:%S} UTC or earlier; the earliest is as "
                f"of {earliest:%Y-%m-%d %H:%M:%S}"
            )
        return max(released, key=lambda row: (row["as_of"], row["sequence"]))
    return max(released, key=lambda row: row["sequence"])


def release_in_force(rows: Sequence[Mapping[str, Any]], as_of: datetime | None = None) -> dict[str, Any] | None:
    """``current_release``; None where there is none."""
    try:
        return current_release(rows, as_of)
    except NoReleaseError:
        return None


def find_release(rows: Sequence[Mapping[str, Any]], release_id: str) -> dict[str, Any]:
    """The row of one readable release; NoReleaseError where it is unknown, withdrawn, expired or never published."""
    found = states(rows).get(release_id)
    if found is None:
        statuses = [row["status"] for row in rows if row["release_id"] == release_id]
        if statuses:
            raise NoReleaseError(f"release {release_id} was {statuses[-1]}, but never released")
        known = ", ".join(list(states(rows))[-3:]) or "none"
        raise NoReleaseError(
            f"there is no release {release_id!r}; the newest are {known} (learn-spark releases lists all)"
        )
    if found["status"] not in READABLE:
        raise NoReleaseError(
            f"release {release_id} was {found['status']} on {found['written_at']:%Y-%m-%d %H:%M} UTC"
            + (f": {found['note']}" if found.get("note") else "")
        )
    return found


def releases_in_force(
    rows: Sequence[Mapping[str, Any]],
) -> list[tuple[datetime, datetime | None, dict[str, Any]]]:
    """Intervals [start, end) and the release in force during each, oldest first; ``end`` is None for the last one.

    A release that was withdrawn later was in force until then.
    """
    ordered = sorted((row for row in rows if row["status"] in STATES), key=lambda row: row["sequence"])
    changes: list[tuple[datetime, dict[str, Any] | None]] = []
    for number, row in enumerate(ordered, 1):
        now = release_in_force(ordered[:number])
        if not changes or now != changes[-1][1]:
            changes.append((row["written_at"], now))
    ends = [*(when for when, _ in changes[1:]), None]
    return [(when, end, row) for (when, row), end in zip(changes, ends, strict=True) if row is not None]


def add_row(workspace: Workspace, row: Mapping[str, Any]) -> dict[str, Any]:
    """Append a row; its ``sequence`` and ``written_at`` are set here. The caller holds the workspace's lock."""
    return _add(workspace, [row])[0]


def withdraw(
    workspace: Workspace, release_id: str, reason: str | None = None
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Withdraw one release by a new row; (the withdrawn row, the release in force now or None).

    Raises NoReleaseError where the release is not readable.
    """
    row = find_release(ledger(workspace), release_id)
    _add(workspace, [_ended(row, "withdrawn", reason)])
    return row, release_in_force(ledger(workspace))


def roll_back(
    workspace: Workspace, to: str | None = None, reason: str | None = None
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Withdraw the release in force, or with ``to`` every release newer than that one, by new rows in one commit.

    Returns (the withdrawn rows, newest first; the release in force now or None). Raises NoReleaseError where nothing is
    released, ``to`` is not readable, or no release is newer.
    """
    withdrawn = to_withdraw(ledger(workspace), to)
    note = reason or ("rolled back" if to is None else f"rolled back to {to}")
    _add(workspace, [_ended(row, "withdrawn", note) for row in withdrawn])
    return withdrawn, release_in_force(ledger(workspace))


def to_withdraw(rows: Sequence[Mapping[str, Any]], to: str | None = None) -> list[dict[str, Any]]:
    """The rows that ``roll_back`` withdraws, newest first; raises as it does."""
    newest = current_release(rows)
    if to is None:
        return [newest]
    kept = find_release(rows, to)
    released = [row for row in states(rows).values() if row["status"] == "released"]
    newer = sorted((r for r in released if r["sequence"] > kept["sequence"]), key=lambda r: -int(r["sequence"]))
    if not newer:
        raise NoReleaseError(f"release {to} is in force already")
    return newer


def expire(workspace: Workspace, release_ids: Sequence[str]) -> None:
    """Mark these releases as no longer readable, by new rows, before their table versions are deleted."""
    known = states(ledger(workspace))
    _add(workspace, [_ended(known[name], "expired", "no longer kept") for name in release_ids])


def _ended(row: Mapping[str, Any], status: str, reason: str | None) -> dict[str, Any]:
    return {**row, "status": status, "note": reason, "run_id": new_run_id()}


def _add(workspace: Workspace, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    path = workspace.table("releases")
    last = max((known["sequence"] for known in read_rows(path)), default=0)
    now = datetime.now(UTC)
    full = [{**row, "sequence": last + place, "written_at": now} for place, row in enumerate(rows, 1)]
    append_rows(path, contract("releases"), full)
    return full
