"""Signs of life: a line on standard error where a command has printed nothing for some seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_TO_FIRST_LINE = 2.0
SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_LOOKS = 0.25


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class Ticker:
    """Says what is being done: ``SECONDS_TO_FIRST_LINE`` after its start if nothing was printed, and later whenever
    nothing was printed for ``SECONDS_BETWEEN_LINES``.

    ``now`` is the clock and ``write`` receives the lines.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, write: Callable[[str], None] = _to_stderr) -> None:
        self._now, self._write = now, write
        self._started = self._last = self._step_began = now()
        self._printed = self._paused = False
        self._stage, self._step = "", "starting"

    def at_stage(self, stage: str) -> None:
        """A stage, or another part of the command's work, begins."""
        self._stage, self._step, self._step_began = stage, "", self._now()

    def at(self, step: str) -> None:
        """A step of the stage begins."""
        self._step, self._step_began = step, self._now()

    def printed(self) -> None:
        """The command printed something."""
        self._last, self._printed = self._now(), True

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Say nothing inside the ``with`` block: something else shows the progress."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False
            self.printed()

    def look(self) -> None:
        """Write a line if one is due."""
        now = self._now()
        patience = SECONDS_BETWEEN_LINES if self._printed else SECONDS_TO_FIRST_LINE
        if self._paused or now - self._last < patience:
            return
        doing = ": ".join(part for part in (self._stage, self._step) if part)
        self._write(f"  ... {doing} ({now - self._step_began:,.0f} s; {now - self._started:,.0f} s in all)")
        self.printed()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Look several times a second, on a thread, until the end of the ``with`` block."""
        self._started = self._last = self._step_began = self._now()
        self._printed, self._stage, self._step = False, "", "starting"
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(_SECONDS_BETWEEN_LOOKS):
                self.look()

        thread = threading.Thread(target=watch, name="ticker", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


COMMAND = Ticker()
"""The ticker of the command that this process runs; every console reports to it."""
