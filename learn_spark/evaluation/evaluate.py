"""The evaluate stage: a model and its baselines rank every user's targets in the whole catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pyarrow as pa

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.stages.context import StageContext
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import append_rows, check_columns
from learn_spark.core.tables.workspace_locks import only_one
from learn_spark.data.splits.split import SplitName
from learn_spark.data.splits.training_view import TrainingView
from learn_spark.evaluation.inputs import unit_content
from learn_spark.evaluation.lists import list_metrics
from learn_spark.evaluation.measures import Measured
from learn_spark.evaluation.results import MetricRow, ResultKey, SliceRow, protocol_of, written_by
from learn_spark.evaluation.rows import LocalRows, SparkRows
from learn_spark.evaluation.sums import SliceMetric
from learn_spark.evaluation.tasks import Ranking, SplitTask, ranks_on_spark, split_tasks, statistics_of
from learn_spark.model.content import bind_content, fit_content
from learn_spark.model.feed.item_matrix import item_matrix
from learn_spark.model.store import Model, load_model

SPLITS: tuple[SplitName, ...] = ("validation", "test")


def run(context: StageContext) -> StageResult:
    """Rank every user's targets on both splits with every method.

    Writes metrics to ``evaluations``, metrics of slices with bootstrap intervals to ``evaluation_slices``, and every
    rank to ``evaluation_users``. The result for a model, table versions, protocol and settings is written once: a
    second run writes nothing and prints a note, unless it is forced; then the newer result is valid. A split on which
    no user has a target is left out with a warning: a release needs a model, and no evaluation.
    """
    for table in ("evaluations", "evaluation_slices", "evaluation_users"):
        check_columns(context.path(table), contract(table))  # before the work, so that no work is lost
    key, protocol = ResultKey.of_settings(context.inputs, context.settings), protocol_of(context.settings)
    name, resource = f"evaluation-{key.digest()}", f"the evaluation of model {key.model_id}"
    with only_one(context.workspace, name, resource, f"run {context.run_id}"):
        return _run(context, key, protocol)


def _run(context: StageContext, key: ResultKey, protocol: str) -> StageResult:
    histories = context.snapshot("user_histories")
    if (earlier_run := written_by(context.workspace, key, protocol)) is not None and not context.forced:
        note = (
            f"model {key.model_id} was evaluated on these tables and settings by run {earlier_run}; nothing is written "
            "(--force evaluates again)"
        )
        return StageResult(rows_in=histories.rows, rows_out=0, notes=(note,))
    model = load_model(context.workspace.place / "models" / key.model_id)
    item_ids = _item_ids(context, model)
    # The frozen baseline reads content in the model's embedding space, if it has one.
    statistics = statistics_of(TrainingView(histories), len(item_ids), context.settings.evaluation)
    matrix = bind_content(context, model) or fit_content(context, statistics.counts)[0]
    metrics: list[MetricRow] = []
    slices: list[SliceRow] = []
    notes: list[str] = []
    users = 0
    tasks = list(split_tasks(context, histories, statistics, model))
    rows = SparkRows(context) if ranks_on_spark(context.settings.evaluation, tasks) else LocalRows(context)
    with rows:
        unit = unit_content(item_matrix(matrix), rows.folder("content"))
        ranking = Ranking(context, histories, rows, unit, matrix, item_ids)
        for task in tasks:
            if not task.users:
                notes.append(
                    f"warning: nothing is measured on the {task.name} split, because no user has a target on it: "
                    f"histories are too short for histories.protocol {context.settings.histories.protocol}, or all "
                    "targets were filtered"
                )
                continue
            measured, model_ids = ranking.measure(task)
            users += measured.users
            notes += _repeat_notes(context, task, measured)
            ks, trained = context.settings.evaluation.ks, task.statistics.trained
            lists = {
                method: dict(_list_metrics(np.concatenate(parts), ks, trained))
                for method, parts in measured.lists.items()
            }
            notes += _empty_list_notes(context, task, measured, lists)
            of_slices = list(measured.sums.metrics())
            metrics += _metric_rows(context, task, measured, model_ids, of_slices, lists, key, protocol)
            slices += [
                SliceRow(run_id=context.run_id, model_id=model_ids[metric.method], split=task.name, **asdict(metric))
                for metric in of_slices
            ]
        if not metrics:
            return StageResult(
                rows_in=histories.rows, rows_out=0, counts={"unmeasured_splits": len(SPLITS)}, notes=tuple(notes)
            )
        rows.append()
    append_rows(context.path("evaluation_slices"), contract("evaluation_slices"), [asdict(row) for row in slices])
    # Last, because a result counts as written from here on.
    append_rows(context.path("evaluations"), contract("evaluations"), [asdict(row) for row in metrics])
    return StageResult(
        rows_in=histories.rows,
        rows_out=users,
        counts={
            "metrics": len(metrics),
            "slice_metrics": len(slices),
            "unmeasured_splits": len(SPLITS) - len({row.split for row in metrics}),
        },
        notes=tuple(notes),
    )


def _item_ids(context: StageContext, model: Model) -> pa.Array:
    """The ids of all items [N] by position, with 64-bit offsets.

    Raises LearnSparkError where the model was trained on fewer items.
    """
    index = context.snapshot("item_index").to_arrow(["item_index", "item_id"]).sort_by("item_index")
    if len(index) > model.tower.n_items:
        raise LearnSparkError(
            f"evaluate: the {model.method} model {model.model_id} was trained on the IDs of {model.tower.n_items:,} "
            f"items, but item_index has {len(index):,}; train again (towers over content do not need to)"
        )
    return index["item_id"].cast(pa.large_string()).combine_chunks()


def _repeat_notes(context: StageContext, task: SplitTask, measured: Measured) -> Iterator[str]:
    """A note where targets repeat items of the masked history."""
    if context.settings.evaluation.mask_history and measured.repeats:
        yield (
            f"{measured.repeats:,} of {measured.targets:,} {task.name} targets are items that their user "
            "had before. They are ranked although the rest of the history is masked, which favours methods that "
            "repeat items. Set evaluation.mask_history: false"
        )


def _empty_list_notes(
    context: StageContext, task: SplitTask, measured: Measured, lists: Mapping[str, Mapping[str, float]]
) -> Iterator[str]:
    """A note where no user of the split has an item left to list."""
    if not any(lists.values()):
        yield (
            f"coverage, Gini, head and novelty are not measured on {task.name}: each of {measured.listed:,} users "
            f"had all {len(task.statistics.trained):,} items before, and evaluation.mask_history is "
            f"{str(context.settings.evaluation.mask_history).lower()}, so that no item is left to list. Set "
            "evaluation.mask_history: false"
        )


def _list_metrics(top: np.ndarray, ks: Sequence[int], trained: np.ndarray) -> Iterator[tuple[str, float]]:
    """Metrics of lists ``top`` [R, max(ks)] by name; none where all lists are empty."""
    for k in ks:
        if (top[:, :k] >= 0).any():
            yield from list_metrics(top[:, :k], trained).items()


def _metric_rows(
    context: StageContext,
    task: SplitTask,
    measured: Measured,
    model_ids: Mapping[str, str],
    of_slices: Sequence[SliceMetric],
    lists: Mapping[str, Mapping[str, float]],
    key: ResultKey,
    protocol: str,
) -> Iterator[MetricRow]:
    """Rows of ``evaluations`` of one split; ``model_ids`` by method, ``lists``: metrics of lists."""
    for method, model_id in model_ids.items():
        of_ranks = {one.metric: one.value for one in of_slices if one.dimension == "all" and one.method == method}
        for values, users in ((of_ranks, measured.users), (lists[method], measured.listed)):
            for metric, value in values.items():
                yield MetricRow(
                    run_id=context.run_id,
                    model_id=model_id,
                    method=method,
                    split=task.name,
                    metric=metric,
                    value=value,
                    users=users,
                    catalogue=len(task.statistics.counts),
                    protocol=protocol,
                    tables=key.tables,
                    settings_hash=key.settings_hash,
                )
