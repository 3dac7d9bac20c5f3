"""What a stage is: its name, the tables it reads and writes, and what a run of it returns."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learn_spark.core.settings.schema import Settings


@dataclass(frozen=True)
class Stage:
    """A stage as the registry knows it; ``module`` is imported only when the stage is looked at.

    The module has ``run(context) -> StageResult`` and, where the stage reads more than tables,
    ``other_inputs(settings, workspace) -> dict[str, str]`` (name -> hash). ``reads_under``: which of the tables in
    ``reads`` are read under some settings, where not always all of them.
    """

    name: str
    module: str
    summary: str
    sections: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    uses_spark: bool
    reads_under: Callable[[Settings], tuple[str, ...]] | None = None

    def load(self) -> Any:
        """The stage's module."""
        return importlib.import_module(self.module)

    def under(self, settings: Settings) -> Stage:
        """The stage with the tables that it reads under these settings."""
        return self if self.reads_under is None else replace(self, reads=self.reads_under(settings))


@dataclass(frozen=True)
class StageResult:
    """What a stage did.

    ``outputs`` names files or folders below the workspace with their hash; tables are recorded by themselves.
    ``measures`` are numbers that the gates of the written tables ask for (their rules' ``given``).
    """

    rows_in: int
    rows_out: int
    refused: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)
