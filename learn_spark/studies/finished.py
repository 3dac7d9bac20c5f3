"""Trainings and evaluations of a study that are done already, by what the runs table says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from learn_spark.core.settings import Settings
from learn_spark.core.settings.load import fingerprint
from learn_spark.core.stages.code import stage_version
from learn_spark.core.stages.registry import find_stage
from learn_spark.core.stages.stage import Stage
from learn_spark.core.tables.runs import Run, all_runs
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.evaluation.results import ResultKey, written_by


@dataclass(frozen=True)
class Trained:
    """A row's training with one seed: its model, the run of evaluate that wrote its result, and what training cost.

    ``seconds`` and ``peak_mib`` (largest memory of the process) are of the train run; of its last part alone where
    ``resumed``, and of what is fitted upon the tower of another model where ``reused_tower``.
    """

    row: str
    seed: int
    model_id: str
    run_id: str
    seconds: float
    peak_mib: int | None
    resumed: bool
    reused_tower: bool


def find_model(workspace: Workspace, settings: Settings) -> Run | None:
    """The run that trained by ``settings`` on the tables as they are now; None where none did, or its model is gone."""
    run = _newest(workspace, find_stage("train"), settings)
    return None if run is None or run.model_id is None else run


def find_trained(workspace: Workspace, settings: Settings, row: str) -> Trained | None:
    """The training and evaluation of ``settings`` on the tables as they are now; None where one is not done."""
    train = find_model(workspace, settings)
    if train is None or train.model_id is None:
        return None
    evaluate = _newest(workspace, find_stage("evaluate"), settings, {"model": train.model_id})
    if evaluate is None:
        return None
    # A result is written once: an evaluation of the same model by other code points to the run that wrote it.
    run_id = written_by(workspace, ResultKey.of_run(evaluate))
    if run_id is None:
        return None
    return Trained(
        row=row,
        seed=settings.training.seed,
        model_id=train.model_id,
        run_id=run_id,
        seconds=train.seconds,
        peak_mib=train.counts.get("peak_mib"),
        resumed=bool(train.counts.get("resumed")),
        reused_tower=bool(train.counts.get("reused_tower")),
    )


def _newest(
    workspace: Workspace, stage: Stage, settings: Settings, others: Mapping[str, str] | None = None
) -> Run | None:
    """The newest finished run of the stage by these settings, its code as it is, and inputs; its model still exists."""
    stage = stage.under(settings)
    versions = {table: str(current_version(workspace.table(table))) for table in stage.reads}
    inputs = _inputs({**versions, **(others or {})})
    for run in reversed(all_runs(workspace)):
        if (
            (run.job, run.status) == (stage.name, "done")
            and run.config_hash == fingerprint(settings, stage.sections)
            and run.code_version == stage_version(stage)
            and _inputs(run.inputs) == inputs
            and all((workspace.place / name).exists() for name in run.outputs if "/" in name)
        ):
            return run
    return None


def _inputs(inputs: Mapping[str, str]) -> dict[str, str]:
    """Without text_embeddings: item_text and the encoder determine what a training reads of it; other encoders add rows
    to it.
    """
    return {name: version for name, version in inputs.items() if name != "text_embeddings"}
