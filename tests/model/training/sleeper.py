"""A process of a training that does nothing, for as long as nobody ends it."""

from __future__ import annotations

import os
import signal
import time


def sleep_on(rank: int) -> None:
    """Write its number, and sleep; an interrupt, which a killed launcher sends, is not heard, as inside of C code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.write(1, f"{os.getpid()}\n".encode())
    time.sleep(600)
