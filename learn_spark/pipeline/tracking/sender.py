"""Sending to a service that may be slow or gone: on a thread, within a time, with one warning."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from learn_spark.core.console import Reporter
from learn_spark.core.settings.secrets import without_secrets

Job = Callable[[], None]
LONGEST = 300  # characters of a reason


class Sender:
    """Does jobs in their order on a thread of its own.

    A job that raises is the last one: what was given before the next ``wait`` is dropped. The first failure is a
    warning, printed by ``wait``, and later ones are silent. The thread ends with the process, whatever it is doing.
    """

    def __init__(self, service: str, console: Reporter) -> None:
        """``service``: its name in the warning."""
        self._service, self._console = service, console
        self._jobs: queue.Queue[Job | threading.Event] = queue.Queue()
        self._repeated: tuple[Job, float] | None = None
        self._failure: str | None = None
        self._late = self._warned = False
        self._thread: threading.Thread | None = None

    def send(self, job: Job) -> None:
        """Do ``job`` after those that were given before; returns at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"sender to {self._service}", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    @contextmanager
    def repeating(self, job: Job, seconds: float) -> Iterator[None]:
        """Do ``job`` every ``seconds`` while the block runs, and once after it."""
        self._repeated = (job, seconds)
        self.send(job)
        try:
            yield
        finally:
            self._repeated = None
            self.send(job)

    def wait(self, seconds: float) -> bool:
        """Wait until all is done, at most ``seconds``; whether all succeeded. Afterwards jobs are tried again.

        A thread that is not ready then is not waited for again, and what is given later is dropped.
        """
        if self._thread is not None and not self._late:
            ready = threading.Event()
            self._jobs.put(ready)
            if not ready.wait(seconds):
                self._late = True
                self._failure = self._failure or f"not done within {seconds:g} s"
        failure, self._failure = self._failure, None
        if failure is not None and not self._warned:
            self._warned = True
            self._console.line(f"warning: {self._service} failed: {failure}; the run goes on without it")
        return failure is None and not self._late

    def _work(self) -> None:
        next_time = 0.0
        while True:
            try:
                repeated = self._repeated
                job = self._jobs.get(timeout=None if repeated is None else max(0.0, next_time - time.monotonic()))
            except queue.Empty:
                if repeated is not None:
                    self._do(repeated[0])
                    next_time = time.monotonic() + repeated[1]
                continue
            if isinstance(job, threading.Event):
                job.set()
                continue
            self._do(job)
            if repeated is not None:
                next_time = time.monotonic() + repeated[1]

    def _do(self, job: Job) -> None:
        if self._failure is not None or self._late:
            return
        try:
            job()
        except Exception as error:
            self._failure = reason(error)


def reason(error: BaseException) -> str:
    """The first line of an error, without secrets, and not longer than ``LONGEST``."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = without_secrets(lines[0])
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
