"""Training a tower: once, and by the rules refit and strict once more on the events that chose the epoch.

The code that this module imports decides a tower's weights, and with it which saved tower can be used again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from learn_spark.core.stages.context import StageContext
from learn_spark.core.storage.folders import upload
from learn_spark.core.storage.path import storage_path
from learn_spark.data.splits.counts import HistoryCounts
from learn_spark.model.manifest import Point
from learn_spark.model.training.checkpoint import Checkpoints
from learn_spark.model.training.launch import train_in_process, train_in_processes, train_on_spark
from learn_spark.model.training.loop import Trained, TrainingError
from learn_spark.model.training.prepare import save_catalogue, save_shares
from learn_spark.model.training.task import TrainingTask
from learn_spark.model.weights import Weights

AGAIN = {
    "strict": "with the last training events, which chose the epoch; no validation event is read",
    "refit": "with the validation events, which chose the epoch",
}


@dataclass(frozen=True)
class TrainedTower:
    """The weights and the learning curve of a tower.

    ``chosen``: the weights of ``best_epoch`` of the first training, whose ``curve`` has one point an epoch; what is
    fitted upon a tower is fitted upon these. ``final``: the weights of the last training, with its ``temperature``
    (None: it is not learnt). ``samples``: how many sequences were trained on.
    """

    chosen: Weights
    final: Weights
    curve: list[Point]
    best_epoch: int
    temperature: float | None
    samples: int


def train_tower(context: StageContext, task: TrainingTask, again: HistoryCounts | None, key: str) -> TrainedTower:
    """Train the tower of ``task``, or resume its training, and train again with the counts ``again`` (None: once).

    ``key`` names the training to trackers. Raises TrainingError where training cannot continue or no epoch has metrics.
    """
    settings = context.settings
    trained = _train(context, task, key)
    chosen = final = _best(task, trained)
    last_point = trained.curve[trained.best_epoch - 1]
    curve = trained.curve
    if again is not None:
        context.console.say(f"training again for {trained.best_epoch} epochs, {AGAIN[settings.training.rule]}")
        assert task.folder is not None
        folder = Path(task.folder)
        refit_task = replace(
            task,
            folder=str(folder / "refit"),
            copy=None if task.copy is None else storage_path(task.copy, settings.storage.s3()) / "refit",
            refit=trained.best_epoch,
            validation=None,
            catalogue=save_catalogue(again, folder / "refit.npy"),
            log_q=save_shares(again, folder / "refit_log_q.npy") if task.log_q else None,
        )
        refitted = _train(context, refit_task, key)
        final = _best(refit_task, refitted)
        last_point = refitted.curve[-1]
        curve = [*curve, *refitted.curve]
    samples = sum(int(epoch["samples"]) for epoch in curve)
    return TrainedTower(chosen, final, trained.curve, trained.best_epoch, last_point.get("temperature"), samples)


def _best(task: TrainingTask, trained: Trained) -> Weights:
    """The weights of a training's best epoch. Raises TrainingError where no epoch has any."""
    assert task.folder is not None
    weights = Checkpoints(Path(task.folder) / "checkpoints").load_best()
    if weights is None:
        raise TrainingError(
            f"none of {len(trained.curve)} epochs has a validation NDCG@10, so that there is no model to save; see the "
            "training log"
        )
    return weights


def _train(context: StageContext, task: TrainingTask, key: str) -> Trained:
    assert task.folder is not None
    with context.observer.training(key, Path(task.folder) / "logs", again=bool(task.refit)):
        return _train_where_set(context, task)


def _train_where_set(context: StageContext, task: TrainingTask) -> Trained:
    training = context.settings.training
    if training.launcher == "spark":
        elsewhere = None if context.workers_are_here else _elsewhere(context, task)
        return train_on_spark(task, training.processes, lambda: context.spark, elsewhere)
    if training.processes > 1:
        return train_in_processes(task, training.processes)
    return train_in_process(task, context.console)


def _elsewhere(context: StageContext, task: TrainingTask) -> TrainingTask:
    """``task`` as executors on other machines read it.

    In a workspace at an address, each machine works in a temporary folder, and the rest lies beside the checkpoints.
    """
    if task.matrix is not None:
        matrix = Path(task.matrix)
        task = replace(task, matrix=context.for_workers(matrix, f"item_matrix-{matrix.name}"))
    if task.copy is None:
        return task
    copy = storage_path(task.copy, context.settings.storage.s3())
    there: dict[str, Any] = {"folder": None}
    for name, file in (("catalogue", task.catalogue), ("log_q", task.log_q), ("validation", task.validation)):
        if file is not None:
            there[name] = copy / Path(file).name
            upload(Path(file), copy / Path(file).name)
    return replace(task, **there)
