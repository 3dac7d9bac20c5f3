"""The commits of a table's log, and the snapshots of many versions from one reading of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from learn_spark.core.storage.path import storage_path
from learn_spark.core.tables.inside import file_inside
from learn_spark.core.tables.snapshot import Snapshot, open_version

# Opening a version costs about as much as reading so many commits.
COMMITS_OF_AN_OPENING = 20
Files = dict[str, tuple[int, int]]  # name -> rows, bytes


def snapshots_of(path: str, versions: Sequence[int]) -> list[Snapshot]:
    """The snapshots of ``versions``, which rise. Raises SnapshotError as ``Snapshot.open``.

    The first is opened; the others follow from the commits after it. Where the log no longer has these commits, or
    where they are too many for so few versions, each version is opened.
    """
    if len(versions) < 2 or versions[-1] - versions[0] > COMMITS_OF_AN_OPENING * len(versions):
        return [Snapshot.open(path, version) for version in versions]
    place, table = storage_path(path), open_version(path, versions[0])
    found, wanted = [Snapshot.of(table, path)], set(versions)
    actions = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    files: Files | None = {one["path"]: (int(one["num_records"]), int(one["size_bytes"])) for one in actions}
    for version in range(versions[0] + 1, versions[-1] + 1):
        files = None if files is None else _after(path, version, files)
        if files is None:
            return [*found, *(Snapshot.open(path, one) for one in versions[len(found) :])]
        if version in wanted:
            names = sorted(files)
            rows, sizes = (tuple(files[name][which] for name in names) for which in (0, 1))
            paths = tuple(file_inside(place, name) for name in names)
            found.append(Snapshot(place, version, paths, rows, sum(sizes)))
    return found


def oldest_version(path: str) -> int | None:
    """The oldest version that the log can still build; None if there is no table. One request at an address.

    Writers delete commits that are older than ``delta.logRetentionDuration`` once a checkpoint has what is in them.
    """
    commits, checkpoints = _log_of(path)
    if not commits:
        return None
    first = max(commits)
    while first - 1 in commits:
        first -= 1
    return 0 if first == 0 else min((one for one in checkpoints if one >= first), default=max(commits))


def commits_to_read(path: str) -> int:
    """The number of commits after the last checkpoint, which opening the table reads one by one."""
    commits, checkpoints = _log_of(path)
    last = max(checkpoints, default=-1)
    return sum(commit > last for commit in commits)


def _log_of(path: str) -> tuple[set[int], set[int]]:
    """The versions that the log has commits of, and those that it has checkpoints of."""
    commits, checkpoints = set(), set()
    for number, _, kind in (name.partition(".") for name in (storage_path(path) / "_delta_log").names()):
        if number.isdecimal() and kind == "json":
            commits.add(int(number))
        elif number.isdecimal() and kind.startswith("checkpoint."):
            checkpoints.add(int(number))
    return commits, checkpoints


def commit_actions(path: str, version: int) -> list[dict[str, Any]] | None:
    """The actions of a commit (add, remove, cdc, metaData, ...); None if the log does not have it any more."""
    try:
        text = (storage_path(path) / "_delta_log" / f"{version:020d}.json").read_text()
    except FileNotFoundError:
        return None
    return [json.loads(line) for line in text.splitlines() if line.strip()]


@dataclass(frozen=True)
class Written:
    """What commits wrote into new files: rows, bytes and files. A row that a merge copied counts too."""

    rows: int
    bytes: int
    files: int


def written_between(path: str, before: int | None, version: int) -> Written | None:
    """What the commits after ``before`` (None: all) up to ``version`` wrote; None where the log no longer says it."""
    rows = size = files = 0
    for commit in range(-1 if before is None else before, version):
        if (actions := commit_actions(path, commit + 1)) is None:
            return None
        for added in (action["add"] for action in actions if "add" in action):
            if not added.get("dataChange", True):
                continue  # files that were only put together
            count = json.loads(added.get("stats") or "{}").get("numRecords")
            if count is None:
                return None
            rows, size, files = rows + int(count), size + int(added["size"]), files + 1
    return Written(rows, size, files)


def _after(path: str, version: int, before: Files) -> Files | None:
    """The files after a commit; None if the log does not have it, or if it says less than a snapshot needs."""
    if (actions := commit_actions(path, version)) is None:
        return None
    files = dict(before)
    for removed in (action["remove"] for action in actions if "remove" in action):
        files.pop(removed["path"], None)
    for added in (action["add"] for action in actions if "add" in action):
        rows = json.loads(added.get("stats") or "{}").get("numRecords")
        if rows is None or added.get("deletionVector"):
            return None
        files[added["path"]] = (int(rows), int(added["size"]))
    return files
