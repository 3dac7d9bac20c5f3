"""The locks of a workspace: one for each thing that is written. Runs that write different things can overlap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from learn_spark.core.stages.stage import Stage
from learn_spark.core.storage.locks import exclude, lock_or_refuse, share
from learn_spark.core.tables.workspace import Workspace


@contextmanager
def writing(workspace: Workspace, names: Iterable[str], job: str) -> Iterator[None]:
    """Keep others from writing ``names`` (tables, folders) while ``job`` does, and from deleting in the workspace.

    LockedError, which names the job that writes one of them.
    """
    with ExitStack() as locks:
        locks.enter_context(share(workspace.folder("locks", "workspace"), f"the workspace {workspace.root}", job))
        # In one order for all: two jobs that need the same two names never wait for each other.
        for name in sorted(set(names)):
            file = workspace.folder("locks") / f"{name}.lock"
            locks.enter_context(lock_or_refuse(file, f"{name} in the workspace {workspace.root}", job))
        yield


@contextmanager
def whole_workspace(workspace: Workspace, job: str) -> Iterator[None]:
    """Keep all others from changing the workspace while ``job`` deletes what nobody reads; LockedError if one does."""
    with exclude(workspace.folder("locks", "workspace"), f"the workspace {workspace.root}", job):
        yield


def exclusively_written(stages: Iterable[Stage]) -> set[str]:
    """What only one run at a time may write, of all that the stages write."""
    return {name for stage in stages for name in (*stage.writes, *stage.folders) if name not in stage.appends}
