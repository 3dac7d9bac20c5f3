"""Runs of benchmarks.chaos that are killed at random instants, and what a kill may hit."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.chaos_shop import environment
from benchmarks.chaos_stores import Store

# Whom a kill hits, and how often: all processes at once, as a machine does that loses its power; or one of them.
VICTIMS = {"all": 70, "driver": 12, "java": 9, "worker": 9}
BY_MOMENT = 0.6  # share of the kills at a change of the store, the others uniform in time
MOST_CHANGES = 25  # of the store, before a kill
LONGEST_PAUSE = 0.05  # seconds between a change and the kill
LONGEST_RUN = 7200.0  # seconds; a run that takes longer hangs
SIGNALS = {"terminated": signal.SIGTERM, "group terminated": signal.SIGTERM, "interrupted": signal.SIGINT}


@dataclass(frozen=True)
class Kill:
    """When a run is killed: after ``seconds``, or after so many ``changes`` of the store and then a ``pause``."""

    victim: str
    seconds: float | None = None
    changes: int | None = None
    pause: float = 0.0


@dataclass(frozen=True)
class Attempt:
    """What became of a run. ``killed``: the kill reached it; ``stage``: what it printed last of where it was;
    ``ending``: seconds from the kill to its end; ``session``: id of its processes' session.
    """

    kill: dict[str, Any] | None
    killed: bool
    stage: str
    seconds: float
    ending: float | None
    code: int
    last: str
    session: int


def draw(chance: random.Random, seconds: float, victims: Mapping[str, int]) -> Kill:
    """A kill at random of a run that would take ``seconds``; ``victims`` are drawn by their weights."""
    victim = chance.choices(list(victims), list(victims.values()))[0]
    if chance.random() < BY_MOMENT:
        pause = chance.choice([0.0, chance.uniform(0, LONGEST_PAUSE)])
        return Kill(victim, changes=chance.randint(1, MOST_CHANGES), pause=pause)
    return Kill(victim, seconds=chance.uniform(1.0, seconds))


class Child(Protocol):
    """A run in a session of its own, as subprocess.Popen has it."""

    pid: int

    def poll(self) -> int | None: ...

    def wait(self) -> int: ...


def start(command: list[str], log: Path) -> Child:
    """Start ``command`` in a session of its own; its output is appended to ``log``."""
    with log.open("ab") as output:
        return subprocess.Popen(command, env=environment(), stdout=output, stderr=output, start_new_session=True)


def run_killed(
    begin: Callable[[], Child], log: Path, kill: Kill | None, store: Store, chance: random.Random
) -> Attempt:
    """``begin`` a run whose output is appended to ``log``, and kill it.

    A run of which one process was killed ends by itself.
    """
    began, before = time.monotonic(), log.stat().st_size if log.exists() else 0
    killed, struck_at = False, 0.0
    if kill is not None and kill.changes is not None:
        store.arm(kill.changes, chance)
    child = begin()
    while child.poll() is None and (passed := time.monotonic() - began) < LONGEST_RUN:
        if kill is None or killed:
            time.sleep(0.1)
        elif kill.seconds is None:
            if store.reached():
                time.sleep(kill.pause)
                killed = strike(child.pid, kill.victim)
                store.release()
        else:
            time.sleep(0.05)
            killed = passed >= kill.seconds and strike(child.pid, kill.victim)
        struck_at = struck_at or (time.monotonic() if killed else 0.0)
    ended = time.monotonic()
    store.release()
    hangs = child.poll() is None
    if hangs:
        strike(child.pid, "all")
    code = child.wait()
    text = log.read_bytes()[before:].decode(errors="replace")
    stage, last = where_it_ended(text)
    return Attempt(
        None if kill is None else asdict(kill),
        killed,
        stage,
        round(ended - began, 1),
        round(ended - struck_at, 1) if killed else None,
        code,
        "hangs" if hangs else last[:300],
        child.pid,
    )


def where_it_ended(text: str) -> tuple[str, str]:
    """(stage, last line) of what a run printed; ``start`` where it came to no stage."""
    stages = re.findall(r"^\[\d+/\d+\] (\w+)", text, re.M)
    lines = [line for line in text.splitlines() if line.strip()]
    return stages[-1] if stages else "start", lines[-1] if lines else ""


def strike(session: int, victim: str) -> bool:
    """Kill the processes of a session that are ``victim``, or send it a signal; whether there was one."""
    if victim in SIGNALS:
        with suppress(ProcessLookupError):
            (os.kill if victim == "terminated" else os.killpg)(session, SIGNALS[victim])
        return True
    struck = [pid for pid, line in _processes(session) if victim in ("all", _role(pid, session, line))]
    if victim == "all":
        with suppress(ProcessLookupError):
            os.killpg(session, signal.SIGKILL)
    if victim == "worker":
        struck = struck[-1:]
    for pid in struck:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(struck)


def await_end(session: int, seconds: float = 60.0) -> bool:
    """Whether no process of the session is left, after ``seconds`` at most."""
    for _ in range(int(seconds * 10)):
        if not list(_processes(session)):
            return True
        time.sleep(0.1)
    return False


def _processes(session: int) -> Iterator[tuple[int, str]]:
    """(process, command line) of a session, the driver first."""
    for entry in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        with suppress(OSError, IndexError):
            state, *fields = Path(f"/proc/{entry}/stat").read_text().rpartition(") ")[2].split()
            if int(fields[2]) == session and state != "Z":
                yield entry, Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def _role(pid: int, session: int, line: str) -> str:
    if pid == session:
        return "driver"
    return "java" if "java" in line.partition(" ")[0] else "worker"
