"""What the names in a table's log tell, without reading it."""

from __future__ import annotations

from learn_spark.core.storage.path import storage_path


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
