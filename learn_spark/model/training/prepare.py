"""What a training needs before its first step: counts of the histories, a sample for validation, content, the task."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings import save_settings
from learn_spark.core.stages.context import StageContext
from learn_spark.core.storage.path import StoragePath
from learn_spark.data.splits.counts import HistoryCounts
from learn_spark.data.splits.training_view import TrainingView
from learn_spark.model.content import fit_content
from learn_spark.model.objectives.negatives import item_log_q
from learn_spark.model.training.objective import objective_for
from learn_spark.model.training.task import TrainingTask

ROWS_OF_INDEX = 1 << 16


def prepare(
    context: StageContext, histories: TrainingView, folder: Path, copy: StoragePath | None
) -> tuple[TrainingTask, HistoryCounts, str | None]:
    """(the task of the training processes, the counts of its histories, key of the content's space).

    Everything is read as a stream or is of the catalogue's size. Raises LearnSparkError where no user has a validation
    target.
    """
    settings = context.settings
    n_items = max(
        int(batch["item_index"].to_numpy().max())
        for batch in context.snapshot("item_index").batches(["item_index"], ROWS_OF_INDEX)
    )
    counts = histories.counts(n_items)
    if not counts.users:
        raise LearnSparkError(
            "train: no user has a validation target; user_histories needs users with at least three events"
        )
    if settings.training.resume == "never":
        shutil.rmtree(folder)
        folder.mkdir()
        if copy is not None:
            copy.remove()
    save_settings(settings, folder)
    if counts.users > settings.training.validation_users:
        context.console.say(
            f"validation ranks {settings.training.validation_users:,} of {counts.users:,} users "
            "(training.validation_users), the same ones in every epoch"
        )
    sample = histories.validation_sample(settings.training.validation_users)
    pq.write_table(sample, folder / "validation.parquet")
    objective = objective_for(settings.objective, catalogue := int((counts.trained > 0).sum()))
    if objective != settings.objective:
        context.console.say(
            f"objective.negatives is full, but {catalogue:,} items have a training event, more than "
            f"objective.full_softmax_items {settings.objective.full_softmax_items:,}: training uses mixed negatives "
            f"with log q, {objective.n_negatives:,} uniform and at most {objective.in_batch_negatives:,} of the batch"
        )
    matrix, space_key = fit_content(context, counts.events) if settings.tower.reads_content else (None, None)
    task = TrainingTask(
        settings={**settings.model_dump(), "objective": objective.model_dump()},
        histories=context.path("user_histories"),
        version=histories.version,
        n_items=n_items,
        matrix=None if matrix is None else str(matrix.parent),
        log_q=save_shares(counts, folder / "log_q.npy") if objective.needs_shares else None,
        catalogue=save_catalogue(counts, folder / "catalogue.npy"),
        folder=str(folder),
        copy=copy,
        validation=str(folder / "validation.parquet"),
    )
    return task, counts, space_key


def save_catalogue(counts: HistoryCounts, path: Path) -> str:
    """Write the increasing item_index of every item with an event in training samples; returns the file's path."""
    np.save(path, np.flatnonzero(counts.trained) + 1, allow_pickle=False)
    return str(path)


def save_shares(counts: HistoryCounts, path: Path) -> str:
    """Write ``log_shares``; returns the file's path."""
    np.save(path, log_shares(counts.events), allow_pickle=False)
    return str(path)


def log_shares(events: np.ndarray) -> np.ndarray:
    """log of each item's share of the training ``events`` [N], [N + 1] by item_index; no event counts as one."""
    shares = item_log_q(np.maximum(np.concatenate([[0], events]), 1))
    shares[0] = 0.0  # padding: its scores are masked
    return shares
