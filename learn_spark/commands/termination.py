"""SIGTERM ends a command as Ctrl-C does: it gives its locks back, and ends within seconds with a sentence."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 128 + signal.SIGTERM
SENTENCE = "stopped by SIGTERM; run the same command again to continue"
SECONDS_TO_END = 8.0  # systemd, Docker and Kubernetes wait longer, Docker 10 s, before they kill


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. As at Ctrl-C, py4j drops the connection whose answer was not read, and nothing takes it for a
    failure of what was being done.
    """


def stopped(error: BaseException) -> tuple[str, int] | None:
    """(last line, exit code) of a command that SIGTERM or Ctrl-C stopped, also where ``error`` came of the cleaning up;
    None where an error has another cause.
    """
    chain: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in chain:
        chain.append(one)
        one = one.__cause__ or one.__context__
    if any(isinstance(one, Terminated) for one in chain):
        return SENTENCE, EXIT_CODE
    if any(isinstance(one, KeyboardInterrupt) for one in chain):
        return "stopped; run the same command again to continue", 128 + signal.SIGINT
    return None


@contextmanager
def ended_by_sigterm(seconds: float = SECONDS_TO_END) -> Iterator[None]:
    """Raise Terminated in the block where SIGTERM arrives; end the process where it is still there ``seconds`` later,
    or at a second SIGTERM: then with ``SENTENCE`` and ``EXIT_CODE`` too.

    A thread that is told of signals by Python's C code counts the seconds, because no handler runs while the main
    thread is inside of PyTorch, FAISS or Arrow. Outside of the main thread the block gets no handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told, teller = socket.socketpair()
    teller.setblocking(False)
    ended = threading.Event()
    before = signal.signal(signal.SIGTERM, _raise)
    wakeup = signal.set_wakeup_fd(teller.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        while number := told.recv(1):
            if number[0] == signal.SIGTERM:
                told.settimeout(seconds)
                try:
                    while (again := told.recv(1)) and again[0] != signal.SIGTERM:
                        pass
                except TimeoutError:
                    again = number
                if again and not ended.is_set():
                    _end()
                return

    threading.Thread(target=watch, name="sigterm", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGTERM, before)
        teller.close()


def _raise(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _end() -> None:
    """End the process at once, whatever its other threads do."""
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{SENTENCE}\n".encode())
    os._exit(EXIT_CODE)
