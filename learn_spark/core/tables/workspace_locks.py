"""Locks on what lies in a workspace: file locks in a folder of this machine, leases at an address."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from learn_spark.core.storage.locks import Held, exclude, lock_or_refuse, share
from learn_spark.core.tables.leases import Mode, lease
from learn_spark.core.tables.workspace import Workspace


def only_one(workspace: Workspace, name: str, resource: str, job: str) -> AbstractContextManager[Held]:
    """Be the only one to do the work ``name``, a name that is used once; LockedError about ``resource``."""
    if workspace.place.is_local:
        return lock_or_refuse(_folder(workspace) / f"{name}.lock", resource, job, remove=True)
    return lease(workspace.place, [(name, "exclusive")], resource, job)


@contextmanager
def writer_of(workspace: Workspace, names: Iterable[str], job: str) -> Iterator[Held]:
    """Be the only writer of ``names``, and one of several users of the workspace; LockedError where another is it."""
    # In one order for all: two jobs that need the same two names never wait for each other.
    wanted = sorted(set(names))
    resource = f"the workspace {workspace.place}"
    if not workspace.place.is_local:
        leases: list[tuple[str, Mode]] = [("workspace", "shared")]
        leases += [(name, "exclusive") for name in wanted]
        with lease(workspace.place, leases, resource, job) as held:
            yield held
        return
    with ExitStack() as locks:
        folder = _folder(workspace)
        held = locks.enter_context(share(folder / "workspace", resource, job))
        for name in wanted:
            held.add(locks.enter_context(lock_or_refuse(folder / f"{name}.lock", f"{name} in {resource}", job)))
        yield held


def only_user(workspace: Workspace, job: str) -> AbstractContextManager[object]:
    """Be the only user of the workspace; LockedError while anybody uses it."""
    resource = f"the workspace {workspace.place}"
    if workspace.place.is_local:
        return exclude(_folder(workspace) / "workspace", resource, job)
    return lease(workspace.place, [("workspace", "exclusive")], resource, job)


def _folder(workspace: Workspace) -> Path:
    # Beside the tables and not in the scratch folder: another machine may have another one.
    return workspace.place.local / "locks"
