"""What follows the runs of a workspace, by its settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from learn_spark.core.console import Reporter
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings import Settings
from learn_spark.core.stages.observer import Observer
from learn_spark.core.stages.stage import Stage
from learn_spark.core.tables.runs import Run
from learn_spark.core.tables.workspace import Workspace


class Observers(Observer):
    """Tells several observers."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def started(self, stage: Stage, run: Run) -> None:
        """A stage begins."""
        for one in self._observers:
            one.started(stage, run)

    def finished(self, stage: Stage, run: Run) -> None:
        """A stage ended."""
        for one in self._observers:
            one.finished(stage, run)

    @contextmanager
    def training(self, key: str, logs: Path, *, again: bool) -> Iterator[None]:
        """A training works during the block."""
        with ExitStack() as all_of_them:
            for one in self._observers:
                all_of_them.enter_context(one.training(key, logs, again=again))
            yield

    def released(self) -> None:
        """Another release may be in force."""
        for one in self._observers:
            one.released()

    def close(self) -> None:
        """No stage follows."""
        for one in self._observers:
            one.close()


def observer_of(settings: Settings, workspace: Workspace, console: Reporter) -> Observer:
    """The observers that the settings name; one that does nothing where they name none.

    Raises SettingsError where a service has no address, MissingPartError where its client is not installed.
    """
    observers: list[Observer] = []
    if "mlflow" in settings.training.tracking:
        from learn_spark.pipeline.tracking.mlflow_tracker import MlflowTracker

        observers.append(MlflowTracker(settings, workspace, console))
    if settings.openlineage.url is not None or settings.openlineage.file is not None:
        from learn_spark.pipeline.tracking.openlineage_observer import OpenLineageObserver

        observers.append(OpenLineageObserver(settings.openlineage, workspace, console))
    return Observers(observers)


def tell_of_releases(settings: Settings, workspace: Workspace, console: Reporter) -> None:
    """Tell the observers that another release may be in force; an error is a warning, also one of the settings."""
    try:
        observer_of(settings, workspace, console).released()
    except LearnSparkError as error:
        console.line(f"warning: the release in force is not told elsewhere: {error}")
