"""The ``releases`` table as a ledger: rows are added, never rewritten; the state of a release is what its rows say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.lineage import new_run_id
from learn_spark.core.tables.log import append_rows, check_columns, read_rows
from learn_spark.core.tables.workspace import Workspace

# What may be read; of these, a backfilled one only by its id or as of a time.
READABLE = ("released", "backfilled")
STATES = (*READABLE, "withdrawn", "expired")


class NoReleaseError(LearnSparkError):
    """Nothing is released, or not what was asked for."""


def ledger(workspace: Workspace) -> list[dict[str, Any]]:
    """All rows of ``releases`` in the order of writing.

    ContractError where the table is of another version of the package, in which a release was something else.
    """
    path = workspace.table("releases")
    check_columns(path, contract("releases"))
    return sorted(read_rows(path), key=lambda row: row["sequence"])


def states(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """release_id -> its newest row that is neither staged nor refused; a release that is nothing else is not there."""
    newest: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["sequence"]):
        if row["status"] in STATES:
            newest[row["release_id"]] = dict(row)
    return newest


def current_release(rows: Sequence[Mapping[str, Any]], as_of: datetime | None = None) -> dict[str, Any]:
    """Of all rows of ``releases``, the one that holds now: the newest ``released`` row that no later row withdrew.

    With ``as_of`` (aware) the one with the latest as_of that is not after it, backfilled ones too: it knows nothing of
    what came then. Staging a release again, and an audit that refuses it then, take nothing away from it.
    NoReleaseError where there is none.
    """
    wanted = ("released",) if as_of is None else READABLE
    released = [row for row in states(rows).values() if row["status"] in wanted]
    if not released:
        raise NoReleaseError("nothing is released; run the publish stage, and look at its gate if it ran")
    if as_of is not None:
        earliest = min(row["as_of"] for row in released)
        released = [row for row in released if row["as_of"] <= as_of]
        if not released:
            raise NoReleaseError(
                f"no release is as of {as_of:%Y-%m-%d %H:%M:%S} UTC or earlier; the earliest of those that hold is as "
                f"of {earliest:%Y-%m-%d %H:%M:%S}"
            )
        return max(released, key=lambda row: (row["as_of"], row["sequence"]))
    return max(released, key=lambda row: row["sequence"])


def holding(rows: Sequence[Mapping[str, Any]], as_of: datetime | None = None) -> dict[str, Any] | None:
    """``current_release``, or None where there is none."""
    try:
        return current_release(rows, as_of)
    except NoReleaseError:
        return None


def release_called(rows: Sequence[Mapping[str, Any]], release_id: str) -> dict[str, Any]:
    """The row of one release that may be read; NoReleaseError where it is unknown, gone, or never published."""
    found = states(rows).get(release_id)
    if found is None:
        there = [row["status"] for row in rows if row["release_id"] == release_id]
        if there:
            raise NoReleaseError(f"release {release_id} was {there[-1]}, but never released")
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


def held_during(
    rows: Sequence[Mapping[str, Any]],
) -> list[tuple[datetime, datetime | None, dict[str, Any]]]:
    """(from, until, released row) of every stretch of time in which a release was the current one, oldest first.

    ``until`` is None for the stretch that lasts. A release withdrawn later held until then.
    """
    ordered = sorted((row for row in rows if row["status"] in STATES), key=lambda row: row["sequence"])
    changes: list[tuple[datetime, dict[str, Any] | None]] = []
    for number, row in enumerate(ordered, 1):
        now = holding(ordered[:number])
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
    """Withdraw one release by a new row; (what was withdrawn, what holds now; None: nothing is released any more).

    Raises NoReleaseError where it does not hold.
    """
    row = release_called(ledger(workspace), release_id)
    _add(workspace, [_taken_away(row, "withdrawn", reason)])
    return row, holding(ledger(workspace))


def roll_back(
    workspace: Workspace, to: str | None = None, reason: str | None = None
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Withdraw the release that holds, or with ``to`` every release newer than that one, by new rows in one commit.

    Returns (what was withdrawn, newest first; what holds now, None: nothing is released any more). Raises
    NoReleaseError where nothing is released, ``to`` does not hold, or nothing is newer.
    """
    gone = to_withdraw(ledger(workspace), to)
    note = reason or ("rolled back" if to is None else f"rolled back to {to}")
    _add(workspace, [_taken_away(row, "withdrawn", note) for row in gone])
    return gone, holding(ledger(workspace))


def to_withdraw(rows: Sequence[Mapping[str, Any]], to: str | None = None) -> list[dict[str, Any]]:
    """What ``roll_back`` withdraws, newest first; raises as it does."""
    newest = current_release(rows)
    if to is None:
        return [newest]
    kept = release_called(rows, to)
    held = [row for row in states(rows).values() if row["status"] == "released"]
    gone = sorted((r for r in held if r["sequence"] > kept["sequence"]), key=lambda r: -int(r["sequence"]))
    if not gone:
        raise NoReleaseError(f"release {to} is the one that holds already")
    return gone


def expire(workspace: Workspace, release_ids: Sequence[str]) -> None:
    """Say by new rows that nobody may read these releases any more, because their versions are about to go."""
    known = states(ledger(workspace))
    _add(workspace, [_taken_away(known[name], "expired", "no longer kept") for name in release_ids])


def _taken_away(row: Mapping[str, Any], status: str, reason: str | None) -> dict[str, Any]:
    return {**row, "status": status, "note": reason, "run_id": new_run_id()}


def _add(workspace: Workspace, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    path = workspace.table("releases")
    last = max((known["sequence"] for known in read_rows(path)), default=0)
    now = datetime.now(UTC)
    full = [{**row, "sequence": last + place, "written_at": now} for place, row in enumerate(rows, 1)]
    append_rows(path, contract("releases"), full)
    return full
