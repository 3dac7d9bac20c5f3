"""Who holds the locks in a folder, found without taking one."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

LOCKS = Path("/proc/locks")


@dataclass(frozen=True)
class Holder:
    """The holder of a lock as it wrote itself; ``at`` is what it works on now, "" before it said so."""

    job: str
    process: int
    since: str
    at: str


def holders(folder: Path) -> list[Holder]:
    """The processes of this machine that hold one of the locks ``user-*.lock`` in ``folder``, the newest last.

    A holder's file outlives a killed process; the kernel's list of locks tells which are held.
    """
    found = []
    for file in sorted(folder.glob("user-*.lock.holder")):
        try:
            entry = json.loads(file.read_text(encoding="utf-8"))
            holder = Holder(str(entry["job"]), int(entry["process"]), str(entry["since"]), str(entry.get("at", "")))
            if entry["host"] == socket.gethostname() and _held(file.with_suffix(""), holder.process):
                found.append(holder)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return sorted(found, key=lambda holder: holder.since)


def _held(lock: Path, process: int) -> bool:
    try:
        held = _inodes(LOCKS.read_text(encoding="ascii").splitlines())
    except OSError:
        return _alive(process)
    return lock.stat().st_ino in held


def _inodes(lines: Iterable[str]) -> set[int]:
    """Inodes of the files with a lock: ``1: FLOCK  ADVISORY  WRITE 4242 fe:00:131 0 EOF``."""
    fields = (line.split() for line in lines)
    return {int(parts[5].rpartition(":")[2]) for parts in fields if len(parts) > 5 and parts[1] == "FLOCK"}


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
