"""A pipeline stage: its name, its input and output tables, and the result of a run."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learn_spark.core.settings.schema import Settings
    from learn_spark.core.tables.workspace import Workspace


@dataclass(frozen=True)
class Stage:
    """An entry of the registry. ``module`` has ``run(context) -> StageResult``; ``load`` imports it on demand.

    ``inputs_module``, for a stage that reads other inputs than tables: the module that has
    ``other_inputs(settings, workspace) -> dict[str, str]`` (name -> hash). It is imported to decide whether the stage
    is up to date, so it imports neither Spark nor torch. ``sections``: the settings that a result depends on, sections
    or single keys (``evaluation.ks``).
    ``reads_under``: the tables of ``reads`` that the stage reads under given settings; None: all. ``appends``: the
    tables of ``writes`` to which several runs of the stage may add rows at the same time. ``folders``: folders of the
    workspace that only this stage writes. ``reads_model``: the stage works on a trained model, and its ``other_inputs``
    has a third argument: the model's id, or None for the newest model that fits.
    """

    name: str
    module: str
    summary: str
    sections: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    uses_spark: bool
    inputs_module: str | None = None
    reads_under: Callable[[Settings], tuple[str, ...]] | None = None
    appends: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    reads_model: bool = False

    def load(self) -> Any:
        """The imported module of the stage."""
        return importlib.import_module(self.module)

    def other_inputs(self, settings: Settings, workspace: Workspace, model_id: str | None = None) -> dict[str, str]:
        """Hash by name of what the stage reads beside tables; ``model_id`` is for a stage with ``reads_model``."""
        if self.inputs_module is None:
            return {}
        chosen = (model_id,) if self.reads_model else ()
        module = importlib.import_module(self.inputs_module)
        hashes: dict[str, str] = module.other_inputs(settings, workspace, *chosen)
        return hashes

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
