"""The evaluate stage: a model and its baselines rank every user's targets in the whole catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings import Settings
from learn_spark.core.stages.context import StageContext
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import append_rows, append_table, check_columns
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace_locks import only_one
from learn_spark.data.splits.sample import UserSample
from learn_spark.data.splits.split import (
    LENGTHS,
    Split,
    SplitName,
    split_histories,
    training_events,
    with_target,
    with_validation,
)
from learn_spark.data.splits.training_view import COLUMNS, PART_ROWS, TrainingView, Until
from learn_spark.evaluation.contenders import Contender, frozen, reranked, trained
from learn_spark.evaluation.lists import list_metrics
from learn_spark.evaluation.results import MetricRow, ResultKey, SliceRow, protocol_of, user_rows, written_by
from learn_spark.evaluation.slices import slice_metrics, target_labels
from learn_spark.evaluation.statistics import Statistics
from learn_spark.model.content import bind_content, fit_content
from learn_spark.model.feed.item_matrix import item_matrix
from learn_spark.model.scoring.metrics import summarise
from learn_spark.model.store import Model, load_model
from learn_spark.model.towers.vectors import unit_rows

SPLITS: tuple[SplitName, ...] = ("validation", "test")
LIST_USERS = 50_000  # users whose lists are measured: a top-k search costs more than ranks


@dataclass(frozen=True)
class SplitTask:
    """A split to evaluate: its users, the contenders, and the statistics that both may use."""

    name: SplitName
    split: Split
    contenders: tuple[Contender, ...]
    statistics: Statistics


@dataclass(frozen=True)
class SplitResult:
    """Ranks [T] of the targets and metrics of lists, both by method.

    ``list_users`` is the number of users whose lists were measured; a method whose lists are all empty has no metrics.
    """

    ranks: Mapping[str, np.ndarray]
    list_metrics: Mapping[str, Mapping[str, float]]
    list_users: int


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
    untrained = frozen(unit_rows(item_matrix(matrix)), model.window)
    metrics: list[MetricRow] = []
    slices: list[SliceRow] = []
    users: list[pa.Table] = []
    notes: list[str] = []
    targets = 0
    for task in _tasks(context, histories, statistics, model, untrained):
        split = task.split
        if not len(split.targets):
            notes.append(
                f"warning: nothing is measured on the {task.name} split, because no user has a target on it: histories "
                f"are too short for histories.protocol {context.settings.histories.protocol}, or all targets were "
                "filtered"
            )
            continue
        targets += len(split.targets)
        notes += _repeat_notes(context, task)
        result = _rank(context, task)
        notes += _empty_list_notes(context, task, result)
        labels = target_labels(split, task.statistics.trained, task.statistics.counts)
        metrics += _metric_rows(context, task, result, key, protocol, len(item_ids))
        slices += _slice_rows(context, task, result, labels, model.manifest.seed)
        ranks_by_method = [
            (contender.method, contender.model_id, result.ranks[contender.method]) for contender in task.contenders
        ]
        users.append(user_rows(context.run_id, task.name, split, item_ids, labels, ranks_by_method))
    if not users:
        return StageResult(
            rows_in=histories.rows, rows_out=0, counts={"unmeasured_splits": len(SPLITS)}, notes=tuple(notes)
        )
    append_table(context.path("evaluation_users"), contract("evaluation_users"), pa.concat_tables(users))
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


def _tasks(
    context: StageContext, histories: Snapshot, statistics: Statistics, model: Model, untrained: Contender
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
    yield _task("validation", histories, "train_length", statistics, untrained, validation_model, context.settings)
    if model.refit:
        until = "validation_length"
        statistics = Statistics.of(TrainingView(histories).parts(until=until), len(statistics.counts))
    yield _task("test", histories, until, statistics, untrained, model, context.settings)


def _task(
    name: SplitName,
    histories: Snapshot,
    until: Until,
    statistics: Statistics,
    untrained: Contender,
    model: Model,
    settings: Settings,
) -> SplitTask:
    """The task of a split; events before the column ``until`` are training events."""
    cross_fitted = name == "validation"  # what was fitted on validation users must not rank them
    by_model = [trained(model, cross_fitted=cross_fitted)]
    if model.reranker is not None and settings.evaluation.reranker:
        parts = TrainingView(histories).user_parts(model.reranker.pair_users, until=until)
        by_model.insert(0, reranked(model, map(training_events, parts), cross_fitted=cross_fitted))
    contenders = (*statistics.baselines, untrained, *by_model)
    ranked = ranked_rows(histories, name, settings.evaluation.users, until)
    return SplitTask(name, split_histories(ranked, name), contenders, statistics)


def ranked_rows(histories: Snapshot, split: SplitName, users: int | None, until: Until = "train_length") -> pa.Table:
    """The rows of at most ``users`` users (None: all) with a target on ``split``, the same ones in every run.

    Besides them, PART_ROWS rows are in memory at a time. ``until`` validation_length: validation events count as
    training events.
    """
    sample = UserSample()
    if users is not None:
        narrow = histories.batches(["user_id", "chunk", *LENGTHS[split]], PART_ROWS)
        sample = UserSample.of((with_target(pa.Table.from_batches([batch]), split) for batch in narrow), users)
    rows = [
        sample.rows(with_target(pa.Table.from_batches([batch]), split))
        for batch in histories.batches(COLUMNS, PART_ROWS)
    ]
    chosen = pa.concat_tables(rows) if rows else contract("user_histories").arrow_schema().empty_table()
    return chosen if until == "train_length" else with_validation(chosen)


def _item_ids(context: StageContext, model: Model) -> np.ndarray:
    """The ids of all items [N] by position. Raises LearnSparkError where the model was trained on fewer items."""
    index = context.snapshot("item_index").to_arrow(["item_index", "item_id"]).sort_by("item_index")
    if len(index) > model.tower.n_items:
        raise LearnSparkError(
            f"evaluate: the {model.method} model {model.model_id} was trained on the IDs of {model.tower.n_items:,} "
            f"items, but item_index has {len(index):,}; train again (towers over content do not need to)"
        )
    return np.array(index["item_id"].to_pylist())


def _repeat_notes(context: StageContext, task: SplitTask) -> Iterator[str]:
    """A note where targets repeat items of the masked history."""
    if context.settings.evaluation.mask_history and (repeats := task.split.repeats()):
        yield (
            f"{repeats:,} of {len(task.split.every_target.positions):,} {task.name} targets are items that their user "
            "had before. They are ranked although the rest of the history is masked, which favours methods that "
            "repeat items. Set evaluation.mask_history: false"
        )


def _empty_list_notes(context: StageContext, task: SplitTask, result: SplitResult) -> Iterator[str]:
    """A note where no user of the split has an item left to list."""
    if not any(result.list_metrics.values()):
        yield (
            f"coverage, Gini, head and novelty are not measured on {task.name}: each of {result.list_users:,} users "
            f"had all {len(task.statistics.trained):,} items before, and evaluation.mask_history is "
            f"{str(context.settings.evaluation.mask_history).lower()}, so that no item is left to list. Set "
            "evaluation.mask_history: false"
        )


def _rank(context: StageContext, task: SplitTask) -> SplitResult:
    settings = context.settings.evaluation
    hidden = task.split.hidden(settings.mask_history)
    listed = np.sort(np.random.default_rng(0).permutation(len(hidden))[:LIST_USERS])
    hidden_of_listed = [hidden[row] for row in listed]
    ranks: dict[str, np.ndarray] = {}
    lists: dict[str, dict[str, float]] = {}
    with context.console.bar(f"{task.name} split", len(task.contenders) * len(hidden), "users") as bar:
        for contender in task.contenders:
            scorer = contender.scorer(task.split)
            ranks[contender.method] = scorer.ranks(hidden, bar.advance)
            top = scorer.top(listed, max(settings.ks), hidden_of_listed)
            lists[contender.method] = {
                metric: value
                for k in settings.ks
                if (top[:, :k] >= 0).any()
                for metric, value in list_metrics(top[:, :k], task.statistics.trained).items()
            }
    return SplitResult(ranks, lists, len(listed))


def _metric_rows(
    context: StageContext, task: SplitTask, result: SplitResult, key: ResultKey, protocol: str, catalogue: int
) -> Iterator[MetricRow]:
    """Rows of ``evaluations`` of one split."""
    offsets = task.split.every_target.offsets
    for one in task.contenders:
        of_ranks = summarise(result.ranks[one.method], context.settings.evaluation.ks, offsets)
        for values, users in (
            (of_ranks, len(task.split.targets)),
            (result.list_metrics[one.method], result.list_users),
        ):
            for metric, value in values.items():
                yield MetricRow(
                    run_id=context.run_id,
                    model_id=one.model_id,
                    method=one.method,
                    split=task.name,
                    metric=metric,
                    value=value,
                    users=users,
                    catalogue=catalogue,
                    protocol=protocol,
                    tables=key.tables,
                    settings_hash=key.settings_hash,
                )


def _slice_rows(
    context: StageContext, task: SplitTask, result: SplitResult, labels: Mapping[str, np.ndarray], seed: int
) -> Iterator[SliceRow]:
    """Rows of ``evaluation_slices``; ``labels`` [T] by dimension."""
    settings, targets = context.settings.evaluation, task.split.every_target
    model_ids = {contender.method: contender.model_id for contender in task.contenders}
    metrics = slice_metrics(
        result.ranks,
        targets.positions,
        targets.owners,
        labels,
        settings.ks,
        samples=settings.bootstrap_samples,
        seed=seed,
    )
    for metric in metrics:
        yield SliceRow(run_id=context.run_id, model_id=model_ids[metric.method], split=task.name, **asdict(metric))
