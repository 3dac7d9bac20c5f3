"""The evaluate stage: a model and its baselines rank every user's targets in the whole catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.stages.context import StageContext
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import append_parts, append_rows, check_columns
from learn_spark.core.tables.workspace_locks import only_one
from learn_spark.data.splits.split import SplitName
from learn_spark.data.splits.training_view import TrainingView
from learn_spark.evaluation.blocks import RankedUsers
from learn_spark.evaluation.lists import list_metrics
from learn_spark.evaluation.results import MetricRow, ResultKey, SliceRow, protocol_of, user_rows, written_by
from learn_spark.evaluation.slices import slice_metrics, target_labels
from learn_spark.evaluation.statistics import Statistics
from learn_spark.evaluation.tasks import SplitTask, rank, split_tasks
from learn_spark.model.content import bind_content, fit_content
from learn_spark.model.feed.item_matrix import item_matrix
from learn_spark.model.scoring.metrics import summarise
from learn_spark.model.store import Model, load_model
from learn_spark.model.towers.vectors import unit_rows

SPLITS: tuple[SplitName, ...] = ("validation", "test")
PART_USERS = 50_000


@dataclass(frozen=True)
class MeasuredSplit:
    """The ranked users of a split, the slices of their targets by dimension, and model_id by method."""

    name: SplitName
    ranked: RankedUsers
    labels: Mapping[str, np.ndarray]
    contenders: Mapping[str, str]

    def user_rows(self, run_id: str, item_ids: np.ndarray) -> Iterator[pa.Table]:
        """Rows of evaluation_users, PART_USERS users of a method at a time."""
        users, targets = self.ranked.user_ids, self.ranked.targets
        owners = targets.owners
        for method, model_id in self.contenders.items():
            for start in range(0, len(users), PART_USERS):
                stop = min(start + PART_USERS, len(users))
                low, high = targets.offsets[start], targets.offsets[stop]
                yield user_rows(
                    {"run_id": run_id, "model_id": model_id, "method": method, "split": self.name},
                    np.array(users[start:stop])[owners[low:high] - start],
                    item_ids[targets.positions[low:high]],
                    {dimension: values[low:high] for dimension, values in self.labels.items()},
                    self.ranked.ranks[method][low:high],
                )


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
    statistics = Statistics.of(TrainingView(histories).parts(), len(item_ids))
    matrix = bind_content(context, model) or fit_content(context, statistics.counts)[0]
    unit = unit_rows(item_matrix(matrix))
    metrics: list[MetricRow] = []
    slices: list[SliceRow] = []
    measured: list[MeasuredSplit] = []
    notes: list[str] = []
    targets = 0
    for task in split_tasks(context, histories, statistics, model):
        if not task.users:
            notes.append(
                f"warning: nothing is measured on the {task.name} split, because no user has a target on it: histories "
                f"are too short for histories.protocol {context.settings.histories.protocol}, or all targets were "
                "filtered"
            )
            continue
        ranked, contenders = rank(context, task, histories, unit, matrix)
        targets += len(ranked.user_ids)
        notes += _repeat_notes(context, task, ranked)
        lists = {
            method: dict(_list_metrics(top, context.settings.evaluation.ks, task.statistics.trained))
            for method, top in ranked.lists.items()
        }
        notes += _empty_list_notes(context, task, ranked, lists)
        labels = target_labels(
            ranked.targets, ranked.lengths, ranked.last, task.statistics.trained, task.statistics.counts
        )
        metrics += _metric_rows(context, task, ranked, contenders, lists, key, protocol)
        slices += _slice_rows(context, task, ranked, contenders, labels, model.manifest.seed)
        measured.append(MeasuredSplit(task.name, ranked, labels, contenders))
    if not measured:
        return StageResult(
            rows_in=histories.rows, rows_out=0, counts={"unmeasured_splits": len(SPLITS)}, notes=tuple(notes)
        )
    users = (part for split in measured for part in split.user_rows(context.run_id, item_ids))
    append_parts(context.path("evaluation_users"), contract("evaluation_users"), users)
    append_rows(context.path("evaluation_slices"), contract("evaluation_slices"), [asdict(row) for row in slices])
    # Last, because a result counts as written from here on.
    append_rows(context.path("evaluations"), contract("evaluations"), [asdict(row) for row in metrics])
    return StageResult(
        rows_in=histories.rows,
        rows_out=targets,
        counts={
            "metrics": len(metrics),
            "slice_metrics": len(slices),
            "unmeasured_splits": len(SPLITS) - len({row.split for row in metrics}),
        },
        notes=tuple(notes),
    )


def _item_ids(context: StageContext, model: Model) -> np.ndarray:
    """The ids of all items [N] by position. Raises LearnSparkError where the model was trained on fewer items."""
    index = context.snapshot("item_index").to_arrow(["item_index", "item_id"]).sort_by("item_index")
    if len(index) > model.tower.n_items:
        raise LearnSparkError(
            f"evaluate: the {model.method} model {model.model_id} was trained on the IDs of {model.tower.n_items:,} "
            f"items, but item_index has {len(index):,}; train again (towers over content do not need to)"
        )
    return np.array(index["item_id"].to_pylist())


def _repeat_notes(context: StageContext, task: SplitTask, ranked: RankedUsers) -> Iterator[str]:
    """A note where targets repeat items of the masked history."""
    if context.settings.evaluation.mask_history and ranked.repeats:
        yield (
            f"{ranked.repeats:,} of {len(ranked.targets.positions):,} {task.name} targets are items that their user "
            "had before. They are ranked although the rest of the history is masked, which favours methods that "
            "repeat items. Set evaluation.mask_history: false"
        )


def _empty_list_notes(
    context: StageContext, task: SplitTask, ranked: RankedUsers, lists: Mapping[str, Mapping[str, float]]
) -> Iterator[str]:
    """A note where no user of the split has an item left to list."""
    if not any(lists.values()):
        yield (
            f"coverage, Gini, head and novelty are not measured on {task.name}: each of {ranked.listed:,} users "
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
    ranked: RankedUsers,
    contenders: Mapping[str, str],
    lists: Mapping[str, Mapping[str, float]],
    key: ResultKey,
    protocol: str,
) -> Iterator[MetricRow]:
    """Rows of ``evaluations`` of one split; ``contenders``: model_id by method, ``lists``: metrics of lists."""
    for method, model_id in contenders.items():
        of_ranks = summarise(ranked.ranks[method], context.settings.evaluation.ks, ranked.targets.offsets)
        for values, users in ((of_ranks, len(ranked.user_ids)), (lists[method], ranked.listed)):
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


def _slice_rows(
    context: StageContext,
    task: SplitTask,
    ranked: RankedUsers,
    contenders: Mapping[str, str],
    labels: Mapping[str, np.ndarray],
    seed: int,
) -> Iterator[SliceRow]:
    """Rows of ``evaluation_slices``; ``labels`` [T] by dimension."""
    settings, targets = context.settings.evaluation, ranked.targets
    metrics = slice_metrics(
        ranked.ranks,
        targets.positions,
        targets.owners,
        labels,
        settings.ks,
        samples=settings.bootstrap_samples,
        seed=seed,
    )
    for metric in metrics:
        yield SliceRow(run_id=context.run_id, model_id=contenders[metric.method], split=task.name, **asdict(metric))
