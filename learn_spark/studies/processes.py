"""Several learn-spark processes at once, each on its share of the cores and with a log file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from learn_spark.core.machine import available_cores

COMMAND = (sys.executable, "-c", "from learn_spark.commands.main import main; main()")
SECONDS_TO_STOP = 30.0


@dataclass(frozen=True)
class Job:
    """A learn-spark command: its ``arguments``, and the file for what it prints."""

    name: str
    arguments: tuple[str, ...]
    log: Path


@dataclass(frozen=True)
class Ended:
    """A job that ended with ``status`` after ``seconds``."""

    job: Job
    status: int
    seconds: float

    def error(self) -> str:
        """The error that the command printed, or its last line."""
        lines = [line for line in self.job.log.read_text(encoding="utf-8", errors="replace").splitlines() if line]
        errors = [line for line in lines if line.startswith("error: ")]
        return (errors or lines or [f"exit status {self.status}"])[-1].removeprefix("error: ")


def run_jobs(jobs: Sequence[Job], at_once: int, started: Callable[[Job], None]) -> Iterator[Ended]:
    """Run the jobs in their order, ``at_once`` at a time; each as it ends. Stopped early, it stops those at work."""
    waiting = list(jobs)
    places = dict(enumerate(_shares(available_cores(), at_once)))
    with _stopped_in_the_end() as running:
        while waiting or running:
            while waiting and (free := sorted(places.keys() - running.keys())):
                job = waiting.pop(0)
                running[free[0]] = (job, _start(job, places[free[0]]), time.monotonic())
                started(job)
            time.sleep(0.1)
            for place, (job, process, clock) in list(running.items()):
                if (status := process.poll()) is not None:
                    del running[place]
                    yield Ended(job, status, time.monotonic() - clock)


@contextmanager
def _stopped_in_the_end() -> Iterator[dict[int, tuple[Job, subprocess.Popen[bytes], float]]]:
    running: dict[int, tuple[Job, subprocess.Popen[bytes], float]] = {}
    try:
        yield running
    finally:
        for _, process, _ in running.values():
            process.terminate()
        for _, process, _ in running.values():
            try:
                process.wait(SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _shares(cores: Sequence[int], at_once: int) -> list[list[int]]:
    """The cores in ``at_once`` shares of nearly equal size; all of them for each where there are fewer."""
    return [list(cores[place::at_once]) or list(cores) for place in range(at_once)]


def _start(job: Job, cores: Sequence[int]) -> subprocess.Popen[bytes]:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("wb") as log:
        process = subprocess.Popen([*COMMAND, *job.arguments], stdout=log, stderr=subprocess.STDOUT)
    # Before the process has threads, which get what it has.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process.pid, cores)
    return process
