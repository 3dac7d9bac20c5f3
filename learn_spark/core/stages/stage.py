"""A pipeline stage: its name, its input and output tables, and the result of a run."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learn_spark.core.settings.schema import Settings


@dataclass(frozen=True)
class Stage:
    """An entry of the registry; ``load`` imports the module on demand.

    The module has ``run(context) -> StageResult`` and, if the stage reads other inputs than tables,
    ``other_inputs(settings, workspace) -> dict[str, str]`` (name -> hash). ``sections``: the settings that a result
    depends on. ``reads_under``: the tables of ``reads`` that the stage reads under given settings; None: all.
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
        """The imported module of the stage."""
        return importlib.import_module(self.module)

    def under(self, settings: Settings) -> Stage:
        """The stage with ``reads`` restricted to the tables that it reads under these settings."""
        return self if self.reads_under is None else replace(self, reads=self.reads_under(settings))


@dataclass(frozen=True)
class StageResult:
    """The result of a stage: numbers of rows, outputs, and notes for the console.

    ``outputs``: file or folder below the workspace -> hash; the runner adds the written tables. ``measures``: values
    for the gates of the written tables (the ``given`` of their rules).
    """

    rows_in: int
    rows_out: int
    refused: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)
