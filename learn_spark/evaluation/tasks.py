"""The splits that an evaluation ranks: their users and contenders, and where they are ranked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from learn_spark.core.settings.training import EvaluationSettings
from learn_spark.core.stages.context import StageContext
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.data.splits.ranked import ranked_parts, ranked_rows, ranked_users, target_days
from learn_spark.data.splits.sample import UserSample
from learn_spark.data.splits.split import SplitName, training_events
from learn_spark.data.splits.training_view import TrainingView, Until
from learn_spark.encoder.gpus import threads_of_task
from learn_spark.evaluation.bands import Quarters
from learn_spark.evaluation.blocks import RankingPlan, rank_blocks
from learn_spark.evaluation.inputs import ContenderInputs
from learn_spark.evaluation.measures import CatalogueFacts, Measured, MeasuringPlan, measure, nothing_measured
from learn_spark.evaluation.rows import LocalRows, SparkRows
from learn_spark.evaluation.slices import ItemSlices
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
        """Whether what was fitted on validation targets must not rank them; rule strict fits on training events."""
        return self.name == "validation" and self.model.manifest.rule != "strict"


def split_tasks(
    context: StageContext, histories: Snapshot, statistics: Statistics, model: Model
) -> Iterator[SplitTask]:
    """The validation task, then the test task; ``statistics`` are those of ``histories`` before a refit.

    After a refit, validation is ranked by the model that it chose. On test, the model and the baselines alike use the
    validation events. Under rule strict, one model ranks both splits, and nothing uses a validation event but as input.
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
        view, n_items = TrainingView(histories), len(statistics.counts)
        statistics = statistics_of(view, n_items, context.settings.evaluation, until=until)
    yield SplitTask("test", model, until, statistics, *ranked_users(histories, "test", most))


def statistics_of(
    histories: TrainingView, n_items: int, settings: EvaluationSettings, *, until: Until = "train_length"
) -> Statistics:
    """The statistics of ``histories``; pairs are those of at most ``settings.pair_users`` users."""
    return Statistics.of(histories.parts(until=until), n_items, histories.sample(settings.pair_users))


def ranks_on_spark(settings: EvaluationSettings, tasks: Sequence[SplitTask]) -> bool:
    """Whether Spark's workers rank the users of ``tasks``."""
    large = any(task.users > DRIVER_USERS for task in tasks)
    return settings.runner == "spark" or (settings.runner == "auto" and large)


class Ranking:
    """The splits of an evaluation, ranked by every contender in this process (``LocalRows``) or by Spark's workers.

    ``unit`` [N + 1, C] is unit content, ``matrix`` the file of the item matrix, ``item_ids`` [N] the ids by position.
    """

    def __init__(
        self,
        context: StageContext,
        histories: Snapshot,
        rows: LocalRows | SparkRows,
        unit: np.ndarray,
        matrix: Path,
        item_ids: pa.Array,
    ) -> None:
        self._context, self._histories, self._rows = context, histories, rows
        self._unit, self._matrix, self._item_ids = unit, matrix, item_ids

    def measure(self, task: SplitTask) -> tuple[Measured, Mapping[str, str]]:
        """(what is measured of the users of a split, model_id by method); ``rows`` gets the users' rows."""
        context, histories, model = self._context, self._histories, task.model
        settings = context.settings.evaluation
        training = None
        if model.reranker is not None and settings.reranker:
            counted = TrainingView(histories).user_parts(model.reranker.pair_users, until=task.until)
            training = map(training_events, counted)
        inputs = ContenderInputs.of(model, task.statistics, self._unit, training, cross_fitted=task.cross_fitted)
        contenders = inputs.contenders(model, cross_fitted=task.cross_fitted)
        listed = task.sample if task.users <= LIST_USERS else ranked_users(histories, task.name, LIST_USERS)[1]
        plan = RankingPlan(task.name, settings.mask_history, max(settings.ks), listed)
        parts: Iterable[pa.Table] = ranked_parts(histories, task.name, task.sample)
        if isinstance(self._rows, LocalRows):
            rows = ranked_rows(histories, task.name, task.sample, task.until)
            parts = [rows]
        measuring = MeasuringPlan(
            context.run_id,
            task.name,
            {contender.method: contender.model_id for contender in contenders},
            Quarters.of(target_days(parts, task.name)),
            settings.ks,
            settings.bootstrap_samples,
            model.manifest.seed,
        )
        catalogue = CatalogueFacts(ItemSlices.of(task.statistics.trained, task.statistics.counts), self._item_ids)
        if isinstance(self._rows, LocalRows):
            measured = nothing_measured(measuring)
            with context.console.bar(f"{task.name} split", len(contenders) * task.users, "users") as bar:
                blocks = rank_blocks(rows, task.users, plan, contenders, bar.advance)
                self._rows.add(measure(blocks, measuring, catalogue, measured))
            return measured, measuring.model_ids
        context.console.say(f"{task.name} split: {task.users:,} users are ranked in Spark's workers")
        folder = self._rows.folder(task.name)
        inputs.save(folder)
        catalogue.save(folder)
        spec = RankingSpec(
            plan,
            measuring,
            task.sample,
            task.until,
            self._rows.for_workers(folder),
            context.workspace.place / "models" / model.model_id,
            before_refit=model.refit and task.name == "validation",
            cross_fitted=task.cross_fitted,
            matrix=context.for_workers(self._matrix.parent, f"item_matrix-{self._matrix.parent.name}")
            if isinstance(model.tower, BoundTower)
            else None,
            threads=threads_of_task(context.spark, context.spark.sparkContext.defaultParallelism, 0),
        )
        measured, ranked = rank_on_spark(context.read("user_histories"), task.users, spec)
        self._rows.add(ranked)
        return measured, measuring.model_ids
