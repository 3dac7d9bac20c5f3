"""The splits that an evaluation ranks: their users and contenders, and where they are ranked."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from learn_spark.core.stages.context import StageContext
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.data.splits.ranked import ranked_rows, ranked_users
from learn_spark.data.splits.sample import UserSample
from learn_spark.data.splits.split import SplitName, training_events
from learn_spark.data.splits.training_view import TrainingView, Until
from learn_spark.encoder.gpus import threads_of_task
from learn_spark.evaluation.blocks import RankedUsers, RankingPlan, rank_table
from learn_spark.evaluation.inputs import ContenderInputs
from learn_spark.evaluation.statistics import Statistics
from learn_spark.evaluation.workers import RankingSpec, rank_on_spark
from learn_spark.model.content import bind_content
from learn_spark.model.store import Model, load_model
from learn_spark.model.towers.bound import BoundTower

LIST_USERS = 50_000  # users whose lists are measured: a top-k search costs more than ranks
DRIVER_USERS = 200_000  # up to so many users of a split, evaluation.runner auto is the driver


@dataclass(frozen=True)
class SplitTask:
    """A split to evaluate: the model that ranks it, the column that ends training events, and their statistics.

    With ``cross_fitted`` no user is ranked by what was fitted on them, as validation needs. ``users`` is the number of
    users to rank, ``sample`` which.
    """

    name: SplitName
    model: Model
    until: Until
    statistics: Statistics
    users: int
    sample: UserSample

    @property
    def cross_fitted(self) -> bool:
        """Whether what was fitted on validation users must not rank them."""
        return self.name == "validation"


def split_tasks(
    context: StageContext, histories: Snapshot, statistics: Statistics, model: Model
) -> Iterator[SplitTask]:
    """The validation task, then the test task; ``statistics`` are those of ``histories`` before a refit.

    After a refit, validation is ranked by the model that it chose. On test, the model and the baselines alike use the
    validation events.
    """
    validation_model: Model = model
    until: Until = "train_length"
    if model.refit:
        validation_model = load_model(context.workspace.place / "models" / model.model_id, before_refit=True)
        bind_content(context, validation_model)
    most = context.settings.evaluation.users
    yield SplitTask("validation", validation_model, until, statistics, *ranked_users(histories, "validation", most))
    if model.refit:
        until = "validation_length"
        statistics = Statistics.of(TrainingView(histories).parts(until=until), len(statistics.counts))
    yield SplitTask("test", model, until, statistics, *ranked_users(histories, "test", most))


def rank(
    context: StageContext, task: SplitTask, histories: Snapshot, unit: np.ndarray, matrix: Path
) -> tuple[RankedUsers, dict[str, str]]:
    """(the users of a split ranked by every contender, model_id by method), here or in Spark's workers."""
    settings, model = context.settings.evaluation, task.model
    training = None
    if model.reranker is not None and settings.reranker:
        parts = TrainingView(histories).user_parts(model.reranker.pair_users, until=task.until)
        training = map(training_events, parts)
    inputs = ContenderInputs.of(model, task.statistics, unit, training, cross_fitted=task.cross_fitted)
    contenders = inputs.contenders(model, cross_fitted=task.cross_fitted)
    listed = task.sample if task.users <= LIST_USERS else ranked_users(histories, task.name, LIST_USERS)[1]
    plan = RankingPlan(task.name, settings.mask_history, max(settings.ks), listed)
    by_method = {contender.method: contender.model_id for contender in contenders}
    if settings.runner == "driver" or (settings.runner == "auto" and task.users <= DRIVER_USERS):
        rows = ranked_rows(histories, task.name, task.sample, task.until)
        with context.console.bar(f"{task.name} split", len(contenders) * task.users, "users") as bar:
            return rank_table(rows, task.users, plan, contenders, bar.advance), by_method
    context.console.say(f"{task.name} split: {task.users:,} users are ranked in Spark's workers")
    key = f"evaluation-{context.run_id}-{task.name}"
    with tempfile.TemporaryDirectory(dir=context.folder("cache", "evaluation")) as folder:
        inputs.save(Path(folder))
        files = context.for_workers(Path(folder), key)
        spec = RankingSpec(
            plan,
            task.sample,
            task.until,
            files,
            context.workspace.place / "models" / model.model_id,
            before_refit=model.refit and task.name == "validation",
            cross_fitted=task.cross_fitted,
            matrix=context.for_workers(matrix.parent, f"item_matrix-{matrix.parent.name}")
            if isinstance(model.tower, BoundTower)
            else None,
            threads=threads_of_task(context.spark, context.spark.sparkContext.defaultParallelism, 0),
        )
        try:
            return rank_on_spark(context.read("user_histories"), task.users, spec), by_method
        finally:
            if not files.is_local:
                files.remove()
