"""Sends an event of OpenLineage at the beginning and at the end of every run of a stage."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from learn_spark.core.console import Reporter
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.tracking import OpenLineageSettings
from learn_spark.core.stages.observer import Observer
from learn_spark.core.stages.stage import Stage
from learn_spark.core.tables.runs import Run
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.tracking.lineage_events import Versions, event_of
from learn_spark.pipeline.tracking.sender import Sender

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent

    Emit = Callable[[RunEvent], None]

KEY = "OPENLINEAGE_API_KEY"


class OpenLineageObserver(Observer):
    """Sends events to a receiver, a file or both, each by a thread of its own."""

    def __init__(self, settings: OpenLineageSettings, workspace: Workspace, console: Reporter) -> None:
        """Connects to nothing and writes nothing yet. Raises MissingPartError without the extra."""
        self._settings, self._workspace = settings, workspace
        self._receivers: list[tuple[Emit, Sender]] = []
        for where, emit in _receivers(settings):
            self._receivers.append((emit, Sender(f"OpenLineage at {where}", console)))
        self._open: tuple[Stage, Run] | None = None
        self._before: Versions | None = None

    def started(self, stage: Stage, run: Run) -> None:
        """Send START; waits for nothing."""
        self._open, self._before = (stage, run), _versions(stage, self._workspace)
        self._send(stage, run)

    def finished(self, stage: Stage, run: Run) -> None:
        """Send COMPLETE or FAIL; waits until both events are sent or a request's time is over."""
        self._open = None
        self._send(stage, run)
        self._wait()

    def close(self) -> None:
        """Send ABORT for a run that did not end, such as one that the user stopped."""
        if self._open is not None:
            stage, run = self._open
            self._open = None
            seconds = max(0.0, (datetime.now(UTC) - run.started_at).total_seconds())
            self._send(stage, replace(run, status="aborted", seconds=seconds))
            self._wait()

    def _send(self, stage: Stage, run: Run) -> None:
        before, namespace = self._before, self._settings.namespace
        for emit, sender in self._receivers:
            sender.send(lambda emit=emit: emit(event_of(stage, run, self._workspace, namespace, before)))  # type: ignore[misc]

    def _wait(self) -> None:
        until = time.monotonic() + 3 * self._settings.timeout_seconds
        for _, sender in self._receivers:
            sender.wait(max(0.0, until - time.monotonic()))


def _versions(stage: Stage, workspace: Workspace) -> Versions | None:
    """The tables that a stage writes, as they are now; None where they cannot be read, which fails no run."""
    try:
        return {table: current_version(workspace.table(table)) for table in stage.writes}
    except (OSError, LearnSparkError):
        return None


def _receivers(settings: OpenLineageSettings) -> list[tuple[str, Emit]]:
    """(where, what sends an event there) of the receivers that the settings name."""
    from openlineage.client import OpenLineageClient
    from openlineage.client.transport.file import FileConfig, FileTransport
    from openlineage.client.transport.http import ApiKeyTokenProvider, HttpConfig, HttpTransport

    receivers: list[tuple[str, Emit]] = []
    if settings.url is not None:
        config = HttpConfig(
            url=settings.url,
            endpoint=settings.endpoint,
            timeout=float(settings.timeout_seconds),
            retry={"total": 0},
        )
        if key := os.environ.get(KEY):
            config.auth = ApiKeyTokenProvider({"apiKey": key})
        receivers.append((settings.url, OpenLineageClient(transport=HttpTransport(config)).emit))
    if settings.file is not None:
        file = Path(settings.file).absolute()
        lines = OpenLineageClient(transport=FileTransport(FileConfig(log_file_path=str(file), append=True)))

        def append(event: RunEvent) -> None:
            file.parent.mkdir(parents=True, exist_ok=True)
            lines.emit(event)

        receivers.append((str(file), append))
    return receivers
