"""The arguments of a running stage: settings, workspace, pinned inputs, console and Spark session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from learn_spark.core.console import Reporter
from learn_spark.core.settings.schema import Settings
from learn_spark.core.stages.observer import Observer
from learn_spark.core.storage.path import StoragePath, storage_path
from learn_spark.core.storage.worker_files import put_for_workers
from learn_spark.core.tables.workspace import Workspace

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from learn_spark.core.tables.snapshot import Snapshot


class SparkHolder:
    """One Spark session for all stages of a process, started on first use."""

    def __init__(
        self,
        settings: Settings,
        *,
        verbose: bool,
        meanwhile: Callable[[], object] = lambda: None,
        at: Callable[[str], object] = lambda step: None,
    ) -> None:
        """``meanwhile`` runs on a thread while the JVM starts; it must not need Spark, and its errors are ignored.

        ``at`` gets the name of the step that begins.
        """
        self._settings, self._verbose, self._meanwhile, self._at = settings, verbose, meanwhile, at
        self._session: SparkSession | None = None
        self._started_here = False

    def get(self, workspace: Workspace) -> SparkSession:
        """The session; the first call starts it, unless the process already has one."""
        if self._session is None:
            # What the main thread imports must be complete before another thread imports.
            from pyspark import SparkContext
            from pyspark.sql import functions  # noqa: F401

            from learn_spark.core.tables.session import start_session

            self._at("starting Spark")
            self._started_here = SparkContext._active_spark_context is None
            log = None if self._verbose else workspace.folder("logs") / "spark.log"
            with ThreadPoolExecutor(1) as beside:
                if self._started_here:
                    beside.submit(self._meanwhile)
                self._session = start_session(
                    self._settings.spark,
                    app="learn-spark",
                    log_file=log,
                    addresses=self._settings.addresses,
                    topics=self._settings.reads_topics,
                )
            self._at("working")
        return self._session

    def stop(self) -> None:
        """Stop the session if ``get`` started it; a session of the caller keeps running."""
        if self._session is not None and self._started_here:
            self._session.stop()
        self._session = None


def session_of(settings: Settings, workspace: Workspace) -> SparkSession:
    """The running session, or a new one, for what only Spark sees before a stage runs, such as names of a catalog."""
    return SparkHolder(settings, verbose=False).get(workspace)


@dataclass(frozen=True)
class StageContext:
    """The arguments of a running stage.

    ``inputs``: input name -> version or hash, with the pinned version of every table that the stage reads.
    ``code_version``: the version of the stage's code. ``forced``: recompute results that exist already. ``observer``:
    is told the course of a training.
    """

    settings: Settings
    workspace: Workspace
    run_id: str
    inputs: Mapping[str, str]
    console: Reporter
    holder: SparkHolder
    code_version: str
    forced: bool = False
    observer: Observer = field(default_factory=Observer)

    @property
    def spark(self) -> SparkSession:
        """The Spark session (started on first use)."""
        return self.holder.get(self.workspace)

    def path(self, table: str) -> StoragePath:
        """Path of a table."""
        return self.workspace.table(table)

    def read(self, table: str) -> DataFrame:
        """An input table at its pinned version, by Spark."""
        from learn_spark.core.tables import delta

        return delta.read(self.spark, self.path(table), int(self.inputs[table]))

    def snapshot(self, table: str) -> Snapshot:
        """An input table at its pinned version, without Spark."""
        from learn_spark.core.tables.snapshot import Snapshot

        return Snapshot.open(self.path(table), int(self.inputs[table]))

    @property
    def staging(self) -> StoragePath:
        """The place of this run's temporary Spark files, which all workers reach; the stage removes it at its end."""
        return self.workspace.place / "staging" / self.run_id

    def for_workers(self, folder: Path, key: str, names: Sequence[str] = ("*",), *, here: bool = False) -> StoragePath:
        """Where Spark's workers find the files in ``folder`` that match ``names``, by ``fetch_for_worker``.

        ``folder`` itself where they run on this machine or share it, or where this process is the reader (``here``);
        else a copy, named by ``key``, at the workspace's place.
        """
        if here or self.workers_are_here:
            return storage_path(folder)
        return put_for_workers(folder, self.workspace.place, key, names)

    @property
    def workers_are_here(self) -> bool:
        """Whether Spark's workers run on this machine."""
        return (self.spark.sparkContext.master or "").startswith("local")

    def folder(self, *parts: str) -> Path:
        """A folder of this machine for what can be made again."""
        return self.workspace.folder(*parts)
