"""Locks between the processes of one machine. A lock's file stays; the lock of a killed process is free again, once
its helpers, such as the Java process of its Spark session, have ended too.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from learn_spark.core.errors import LearnSparkError


class LockedError(LearnSparkError):
    """Another process, or another call in this one, works on ``resource``."""

    def __init__(self, resource: str, holder: str) -> None:
        super().__init__(f"{resource} is in use by {holder}; wait for it to end")
        self.resource = resource
        self.holder = holder


# (process, its start) of the helpers of this process, and the files of the locks that it holds.
_helpers: list[tuple[int, str]] = []
_holding: set[Path] = set()


def helped_by(process: int) -> None:
    """Let nobody take the locks of this process while ``process`` lives, which changes what they protect, should this
    process be killed. Where the machine does not tell when a process started, nothing is recorded.
    """
    if started := _started(process):
        _helpers.append((process, started))
        for file in list(_holding):
            _record(file, helpers=_helpers)


class Held:
    """Locks that are held; ``at`` records for others what their holder does now."""

    def __init__(self, files: Iterable[Path] = ()) -> None:
        self._files = list(files)

    def add(self, other: Held) -> None:
        """Record in the files of ``other`` too."""
        self._files += other._files

    def at(self, what: str) -> None:
        """Record ``what`` the holder works on, such as ``stage train``. A file that cannot be written is left."""
        for file in self._files:
            _record(file, at=what)


@contextmanager
def lock_or_refuse(path: Path, resource: str, job: str, *, remove: bool = False) -> Iterator[Held]:
    """Take the lock ``path`` at once, in the name of ``job``; LockedError about ``resource`` if it is taken, or if its
    holder was killed and a helper of it still works.

    ``remove``: delete the lock's file in the end, where a name is used once. FileLock never takes a deleted file's lock
    for the lock of that name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise LockedError(resource, _holder(path)) from None
    file = _holder_file(path)
    try:
        if survivor := _survivor(file):
            remove = False
            raise LockedError(resource, survivor)
        holder = {"job": job, "process": os.getpid(), "host": socket.gethostname(), "since": _now()}
        file.write_text(json.dumps({**holder, "helpers": _helpers}), encoding="utf-8")
        _holding.add(file)
        try:
            yield Held([file])
        finally:
            _holding.discard(file)
            _record(file, helpers=[])
    finally:
        if remove:
            path.unlink(missing_ok=True)
            _holder_file(path).unlink(missing_ok=True)
        lock.release()


@contextmanager
def wait_for_lock(path: Path) -> Iterator[None]:
    """Take the lock ``path``; wait while another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield


@contextmanager
def share(folder: Path, resource: str, job: str) -> Iterator[Held]:
    """Be one of the users of ``resource``, whose locks lie in ``folder``; LockedError while somebody has it alone."""
    lock = folder / f"user-{os.getpid()}-{secrets.token_hex(4)}.lock"
    with ExitStack() as locks:
        with wait_for_lock(folder / "gate.lock"):
            with lock_or_refuse(folder / "exclusive.lock", resource, job):
                pass
            held = locks.enter_context(lock_or_refuse(lock, resource, job, remove=True))
        yield held


@contextmanager
def exclude(folder: Path, resource: str, job: str) -> Iterator[None]:
    """Be the only user of ``resource``, whose locks lie in ``folder``; LockedError while anybody uses it."""
    with ExitStack() as locks:
        with wait_for_lock(folder / "gate.lock"):
            locks.enter_context(lock_or_refuse(folder / "exclusive.lock", resource, job))
            for user in folder.glob("user-*.lock"):
                with lock_or_refuse(user, resource, job, remove=True):
                    pass  # its process was killed
        yield


def _holder_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.holder")


def _holder(path: Path) -> str:
    """Who has the lock, as the holder wrote it: it may be about to write it, or be gone already."""
    try:
        holder = json.loads(_holder_file(path).read_text(encoding="utf-8"))
        now = f", now at {holder['at']}" if "at" in holder else ""
        return f"{holder['job']} (process {holder['process']} on {holder['host']}, since {holder['since']}{now})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _record(file: Path, **more: object) -> None:
    """Write ``more`` into a holder's file. A file that cannot be written is left."""
    with suppress(OSError, ValueError):
        entry = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps({**entry, **more}), encoding="utf-8")


def _survivor(file: Path) -> str | None:
    """The helper that outlived the killed holder which wrote ``file``; None where there is none."""
    try:
        entry = json.loads(file.read_text(encoding="utf-8"))
        if entry["host"] != socket.gethostname() or entry["process"] == os.getpid():
            return None
        alive = [process for process, started in entry.get("helpers", ()) if _started(process) == started]
        return f"process {alive[0]}, which {entry['job']} left behind when it was killed" if alive else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _started(process: int) -> str | None:
    """When a process started, as Linux writes it; None where it has ended, or the machine does not say."""
    try:
        status, _, fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace").rpartition(") ")
        return None if fields.startswith(("Z", "X")) or not status else fields.split()[19]
    except (OSError, IndexError):
        return None


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
