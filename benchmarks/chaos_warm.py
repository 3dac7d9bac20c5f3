"""Runs of benchmarks.chaos as forks of a process that has imported everything and started Spark, for busy machines.

A fork is a driver that can be killed at any instant; a run costs a second of the processor in place of half a minute.
Spark's Java process outlives it: what it was doing when its driver was killed, it completes, while the next driver is
at work. That is more than may happen to a run, whose locks nobody gets before its Java process has ended.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.chaos_shop import environment

ENDED = "-9"  # in place of a line of a process that has ended: the exit code of a run that it forked


class WarmChild:
    """A run that a Warm process forked; as subprocess.Popen, as far as run_killed needs it."""

    def __init__(self, pid: int, codes: queue.Queue[str]) -> None:
        self.pid, self._codes, self._code = pid, codes, None

    _code: int | None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self._code is None and not self._codes.empty():
            self.wait()
        return self._code

    def wait(self) -> int:
        """The exit code, once it has ended."""
        if self._code is None:
            self._code = int(self._codes.get())
        return self._code


class Warm:
    """The process that forks."""

    def __init__(self, settings: Path | None, overrides: list[str], log: Path) -> None:
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.chaos_warm", str(settings or ""), json.dumps(overrides), str(log)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment(),
            )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        if self._lines.get() == ENDED:
            raise SystemExit(f"the process that forks runs has ended before the first; see {log}")

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(ENDED)

    def start(self, arguments: list[str], output: Path) -> WarmChild:
        """Fork a run of learn-spark with these arguments, whose output is appended to a file."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([arguments, str(output)]) + "\n")
        self._process.stdin.flush()
        return WarmChild(int(self._lines.get()), self._lines)

    def stop(self) -> None:
        """End the process and its Java process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(120)


@contextmanager
def warm_process(settings: Path | None, overrides: list[str], log: Path) -> Iterator[Warm]:
    """A Warm process for runs with these settings, which start Spark; None: for runs that need none."""
    warm = Warm(settings, overrides, log)
    try:
        yield warm
    finally:
        warm.stop()


def _import_all(settings_file: str, overrides: list[str], log: Path) -> Any:
    """Import what runs import, and start Spark. Nothing here calls deltalake: its threads do not survive a fork."""
    from learn_spark.commands.app import quiet_environment

    quiet_environment(False)
    from learn_spark.commands.main import main
    from learn_spark.core.quality.expectations import prepare
    from learn_spark.core.settings import load_settings
    from learn_spark.core.stages.registry import all_stages
    from learn_spark.core.tables import session
    from learn_spark.pipeline import runner, summary  # noqa: F401

    for stage in all_stages():
        stage.load()
    prepare()
    if settings_file:
        settings = load_settings(settings_file, overrides)
        session.helped_by = lambda process: None  # it does not end
        addresses, log_file = settings.addresses, log.with_name("spark.log")
        session.start_session(settings.spark, app="chaos", log_file=log_file, addresses=addresses)
    return main


_of_parent: list[object] = []


def _leave_connections() -> None:
    """Let this fork make connections of its own to Java; those of its parent stay open, and unused.

    A thread that tells Java what Python no longer needs is the fork's own too: without it, plans fill Java's memory.
    """
    from py4j.clientserver import FinalizerWorker
    from pyspark import SparkContext

    if SparkContext._gateway is not None:
        client = SparkContext._gateway._gateway_client
        _of_parent.extend([client.thread_connection, client.deque, list(client.deque)])
        client.thread_connection, client.deque = threading.local(), deque()
        worker = FinalizerWorker(client.finalizer_deque)
        worker.daemon = True
        worker.start()


def _let_go() -> None:
    """Tell Java that nothing of this fork is needed any more."""
    from pyspark import SparkContext

    gc.collect()
    if SparkContext._gateway is not None:
        left, until = SparkContext._gateway._gateway_client.finalizer_deque, time.monotonic() + 5
        while left and time.monotonic() < until:
            time.sleep(0.01)


def serve(settings: str, overrides: list[str], log: Path) -> None:
    """Fork a run for each line of standard input; print its process and, in the end, its exit code."""
    main = _import_all(settings, overrides, log)
    gc.freeze()
    print("ready", flush=True)
    while line := sys.stdin.readline():
        arguments, output = json.loads(line)
        pid = os.fork()
        if pid:
            print(pid, flush=True)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
            continue
        os.setsid()
        _leave_connections()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        target = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(target, 1)
        os.dup2(target, 2)
        sys.argv = ["learn-spark", *arguments]
        code = 1
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            _let_go()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3]))
