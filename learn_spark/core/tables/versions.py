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
