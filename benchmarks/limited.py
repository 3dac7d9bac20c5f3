"""A process whose memory the operating system limits: a control group of Linux below this process's own.

Beyond its limit a process is killed by the kernel, so that a promise of bounded memory is a run that ends. It needs the
right to make control groups (root), with version 1 or 2.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Limited:
    """The end of a process: its exit code (-9: killed), its output, and the most memory it had, in MiB.

    Memory is that of the whole group, its part of the cache of files among it.
    """

    code: int
    output: str
    peak: int


def run_limited(command: Sequence[str], mib: int, environment: dict[str, str] | None = None) -> Limited:
    """Run a command in a group that gets ``mib`` MiB, all its processes together; files' cache gives way first."""
    with _group(mib) as group:

        def enter() -> None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=enter)
        peaks = [group / name for name in ("memory.max_usage_in_bytes", "memory.peak") if (group / name).is_file()]
        peak = int(peaks[0].read_text()) if peaks else 0
        return Limited(done.returncode, done.stdout, peak >> 20)


@contextmanager
def _group(mib: int) -> Iterator[Path]:
    parent, limit = _own_group()
    group = parent / f"limited-{os.getpid()}"
    group.mkdir()
    try:
        (group / limit).write_text(str(mib << 20))
        yield group
    finally:
        with suppress(OSError):
            group.rmdir()


def _own_group() -> tuple[Path, str]:
    """(folder of the group that this process is in, name of the file of a limit)."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            return _ROOT / "memory" / path.strip("/"), "memory.limit_in_bytes"
        if controllers == "" and (_ROOT / "cgroup.controllers").is_file():
            return _ROOT / path.strip("/"), "memory.max"
    raise SystemExit("this system has no control groups that limit memory")
