"""Wall and CPU seconds and Spark jobs by stage and phase, measured around functions of the package."""

from __future__ import annotations

import builtins
import functools
import importlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Phase -> where its functions are looked up by those who call them. A checkout that lacks one has no such phase.
PHASES = {
    "session": (("learn_spark.core.tables.session", "start_session"),),
    "create tables": (("learn_spark.core.tables.delta", "create_if_missing"),),
    "reading": (("learn_spark.data.sources.landing", "Landing._write"),),
    "commits": (
        ("learn_spark.core.tables.delta", "merge"),
        ("learn_spark.core.tables.delta", "append"),
        ("learn_spark.core.tables.delta", "overwrite"),
        ("learn_spark.data.histories.assemble", "replace_users"),
        ("learn_spark.features.publish", "commit"),
    ),
    "item_index": (("learn_spark.data.sources.ingest", "_extend_index"),),
    "waiting events": (("learn_spark.data.sources.reingestion", "QuarantinedEvents.__init__"),),
    "corrections": (("learn_spark.data.sources.ingest", "_corrections"),),
    "audit": (("learn_spark.features.publish", "_audit"),),
    "gates": (("learn_spark.pipeline.gates", "Gates.require"), ("learn_spark.pipeline.gates", "Gates.write_docs")),
    "code versions": (("learn_spark.pipeline.runner", "stage_version"),),
}
REST = "everything else"
OUTSIDE = "start and end"  # of a run: what is in no stage
Figures = list[float]  # wall seconds, CPU seconds, Spark jobs


def cpu_seconds() -> float:
    """CPU time of this process and of all below it, those that ended and were waited for among them."""
    tick, parents, seconds = os.sysconf("SC_CLK_TCK"), {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(folder.name)] = int(fields[1])
            seconds[int(folder.name)] = sum(map(int, fields[11:15])) / tick
    tree = [os.getpid()]
    for process in tree:
        tree += [child for child, parent in parents.items() if parent == process]
    return sum(seconds.get(process, 0.0) for process in tree)


def _java_context() -> Any:
    if "pyspark" not in sys.modules:
        return None
    from pyspark import SparkContext

    context = SparkContext._active_spark_context
    gateway = getattr(context, "_jsc", None)
    return None if gateway is None else gateway.sc()


def spark_jobs() -> int:
    """Number of Spark jobs that the session has started."""
    context = _java_context()
    return 0 if context is None else int(context.dagScheduler().numTotalJobs())


def job_seconds(first: int) -> float:
    """Seconds in which a job with this number or a later one ran, of those that Spark still knows."""
    context = _java_context()
    if context is None:
        return 0.0
    jobs, spans = context.statusStore().jobsList(None), []
    for n in range(jobs.size()):
        job = jobs.apply(n)
        if job.jobId() >= first and job.completionTime().isDefined():
            spans.append((job.submissionTime().get().getTime(), job.completionTime().get().getTime()))
    total = end = 0
    for begun, done in sorted(spans):
        total += max(0, done - max(begun, end))
        end = max(end, done)
    return total / 1000


class Clock:
    """Wall and CPU seconds and Spark jobs by phase of each stage, without the phases inside a phase.

    ``waited``: by stage, the seconds in which Python waited for the JVM, and those of them in which a Spark job ran.
    """

    def __init__(self) -> None:
        self.phases: dict[str, dict[str, Figures]] = {}
        self.waited: dict[str, list[float]] = {}
        self._stage, self._jvm = OUTSIDE, 0.0
        self._inner: list[Figures] = [[0.0, 0.0, 0.0]]
        self._thread = threading.get_ident()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what is inside the ``with`` block."""
        before = [time.monotonic(), cpu_seconds(), spark_jobs()]
        self._inner.append([0.0, 0.0, 0.0])
        try:
            yield
        finally:
            after = [time.monotonic(), cpu_seconds(), spark_jobs()]
            inner = self._inner.pop()
            figures = self.phases.setdefault(self._stage, {}).setdefault(name, [0.0, 0.0, 0.0])
            for n in range(3):
                took = after[n] - before[n]
                self._inner[-1][n] += took
                figures[n] += took - inner[n]

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure what is inside the ``with`` block as a stage, in its phases and the rest."""
        outer, self._stage = self._stage, name
        jobs, jvm = spark_jobs(), self._jvm
        try:
            with self.phase(REST):
                yield
        finally:
            self._stage = outer
            self.waited[name] = [self._jvm - jvm, job_seconds(jobs)]

    def watch_all(self) -> None:
        """Measure all PHASES, the imports, and the time in which Python waits for the JVM."""
        for name, functions in PHASES.items():
            for module, function in functions:
                self._watch(name, module, function)
        self._watch_imports()
        self._watch_jvm()

    def _watch(self, name: str, module: str, function: str) -> None:
        try:
            owner: Any = importlib.import_module(module)
            *classes, last = function.split(".")
            for part in classes:
                owner = getattr(owner, part)
            watched: Callable[..., Any] = getattr(owner, last)
        except (ImportError, AttributeError):
            return

        @functools.wraps(watched)
        def timed(*arguments: Any, **options: Any) -> Any:
            if threading.get_ident() != self._thread:
                return watched(*arguments, **options)
            with self.phase(name):
                return watched(*arguments, **options)

        setattr(owner, last, timed)

    def _watch_imports(self) -> None:
        plain, inside = builtins.__import__, [False]

        def timed(name: str, *arguments: Any, **options: Any) -> Any:
            if inside[0] or name in sys.modules or threading.get_ident() != self._thread:
                return plain(name, *arguments, **options)
            inside[0] = True
            try:
                with self.phase("imports"):
                    return plain(name, *arguments, **options)
            finally:
                inside[0] = False

        builtins.__import__ = timed

    def _watch_jvm(self) -> None:
        from py4j.java_gateway import GatewayClient

        send = GatewayClient.send_command

        @functools.wraps(send)
        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.monotonic()
            try:
                return send(*arguments, **options)
            finally:
                if threading.get_ident() == self._thread:
                    self._jvm += time.monotonic() - start

        GatewayClient.send_command = timed
