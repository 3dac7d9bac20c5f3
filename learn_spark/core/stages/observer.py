"""What follows the runs of stages, such as a tracking server: it is told of them and changes no result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from learn_spark.core.stages.stage import Stage
    from learn_spark.core.tables.runs import Run


class Observer:
    """Is told the beginning and the end of every run of a stage; this one does nothing with it."""

    def started(self, stage: Stage, run: Run) -> None:
        """A stage begins; ``run`` has its inputs, and neither outputs nor counts yet."""

    def finished(self, stage: Stage, run: Run) -> None:
        """A stage ended, and ``run`` is recorded; its status is done, failed or refused."""

    @contextmanager
    def training(self, key: str, logs: Path, *, again: bool) -> Iterator[None]:
        """A training writes ``logs``/steps.jsonl during the block.

        ``key`` is the same when the training is resumed; ``again``: it is the second training of a model, with the
        targets that chose the epoch.
        """
        yield

    def released(self) -> None:
        """Releases were withdrawn or restored: another one may be in force."""

    def close(self) -> None:
        """No stage follows."""
