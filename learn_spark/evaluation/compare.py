"""Two methods on the same users: paired differences with intervals, on the whole split and by slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow.compute as pc

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.runs import Run, all_runs, run_order
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.splits.sample import user_hashes
from learn_spark.data.splits.split import SplitName
from learn_spark.evaluation.bootstrap import Difference
from learn_spark.evaluation.common_targets import CommonTargets, Evaluated, TargetDifference, Targets
from learn_spark.evaluation.labels import BASELINES
from learn_spark.evaluation.results import VECTORS_ONLY, ResultKey, metric_rows, written_by
from learn_spark.evaluation.sums import MetricDifference, SplitSums

NAMED_IN_ERRORS = 5
BLOCK_USERS = 1 << 14  # users of whom metrics are added at once


@dataclass(frozen=True)
class EvaluatedModel:
    """A model's result in the table evaluations.

    Results are comparable where ``protocol`` and ``tables`` (versions of user_histories and item_index) are equal.
    """

    run_id: str
    method: str
    model_id: str
    protocol: str
    tables: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class SliceDifference:
    """First minus other in one metric on one slice.

    ``first`` and ``other`` are the two means, ``difference`` their paired difference, ``items`` the number of distinct
    target items.
    """

    against: str
    model_id: str
    dimension: str
    slice: str
    metric: str
    first: float
    other: float
    difference: Difference
    items: int


@dataclass(frozen=True)
class Comparison:
    """``first`` compared with every other method: the whole split, then its slices."""

    first: EvaluatedModel
    split: SplitName
    users: int
    samples: int
    differences: tuple[SliceDifference, ...]


def compare(
    workspace: Workspace,
    names: Sequence[str],
    *,
    split: SplitName = "test",
    k: int = 10,
    samples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare the first of ``names`` with the other names, its baselines, and rival towers on the same users.

    ``names`` are runs of evaluate or train, or model ids. Baselines are those of the same evaluation, including the
    model's vectors without the reranker. Rivals are the newest results of every other kind of tower. Metrics are HR@k
    and NDCG@k.

    Raises LearnSparkError for a name without an evaluated model, a name given twice, and where protocols, table
    versions, users or targets differ.
    """
    results = _evaluated(workspace)
    runs = {run.run_id: run for run in all_runs(workspace)}
    named = [_find(workspace, name, results, runs) for name in names]
    first = named[0]
    for number, other in enumerate(named[1:], 1):
        if other in named[:number]:
            raise LearnSparkError(
                f"compare: {names[number]} names the {other.method} model {other.model_id} a second time"
            )
        _check_comparable(first, other)
    kinds = {result.method for result in named}
    rivals = {
        result.method: result
        for result in results
        if result.method not in kinds and (result.protocol, result.tables) == (first.protocol, first.tables)
    }
    others = [*named[1:], *(rivals[kind] for kind in sorted(rivals))]
    opponents = _opponents(first, others, _methods(workspace, split))
    targets = CommonTargets(workspace, (first.run_id, first.method), [one for one, _ in opponents], split)
    sums, users = SplitSums([k], samples=samples, seed=seed), 0
    for part in targets.parts():
        _add(sums, part)
        users += len(part.user_ids)
    _check_same_targets(first, [(shown, targets.differences[one]) for one, shown in opponents], split)
    numbers = {str(number): shown for number, (_, shown) in enumerate(opponents, 1)}
    return Comparison(
        first, split, users, samples, tuple(_named(one, *numbers[one.method]) for one in sums.differences("0"))
    )


def _evaluated(workspace: Workspace) -> list[EvaluatedModel]:
    """Every evaluation result, oldest first; LearnSparkError where there is none."""
    results = {}
    for row in metric_rows(workspace):
        repeats_model = row.method.endswith(VECTORS_ONLY) and row.run_id in results
        if row.method not in BASELINES and not repeats_model:
            tables = tuple((name, row.tables[name]) for name in ("user_histories", "item_index"))
            results[row.run_id] = EvaluatedModel(row.run_id, row.method, row.model_id, row.protocol, tables)
    if not results:
        raise LearnSparkError(f"compare: no model has been evaluated in {workspace.place}; learn-spark evaluate does")
    places = run_order(workspace)
    return [results[run_id] for run_id in sorted(results, key=lambda name: (places.get(name, -1), name))]


def _find(workspace: Workspace, name: str, results: Sequence[EvaluatedModel], runs: dict[str, Run]) -> EvaluatedModel:
    """The newest result with this name, a run or a model id. Raises LearnSparkError where there is none."""
    run, run_id, model = runs.get(name), None, name
    if run is not None and run.job == "evaluate":
        run_id = written_by(workspace, ResultKey.of_run(run))
    elif run is not None:
        model = run.model_id or ""
        if not model:
            raise LearnSparkError(f"compare: {name} is a run of {run.job}; name a run of evaluate or train, or a model")
    matches = [result for result in results if (result.run_id == run_id if run_id else result.model_id == model)]
    if not matches:
        newest = ", ".join(
            f"{result.model_id} ({result.method}, run {result.run_id})"
            for result in results[: -NAMED_IN_ERRORS - 1 : -1]
        )
        raise LearnSparkError(f"compare: there is no evaluation of {name!r}; the newest results are {newest}")
    return matches[-1]


def _check_comparable(first: EvaluatedModel, other: EvaluatedModel) -> None:
    for attribute, first_value, other_value in (
        ("protocol", first.protocol, other.protocol),
        *((f"version of {name}", first_value, dict(other.tables)[name]) for name, first_value in first.tables),
    ):
        if first_value != other_value:
            raise LearnSparkError(
                f"compare: {first.method} {first.model_id} and {other.method} {other.model_id} cannot be compared: "
                f"their {attribute} differs ({first_value} and {other_value}); evaluate both with the same"
            )


def _methods(workspace: Workspace, split: SplitName) -> set[Evaluated]:
    """What has results on a split."""
    return {(row.run_id, row.method) for row in metric_rows(workspace, pc.field("split") == split)}


def _opponents(
    first: EvaluatedModel, others: Sequence[EvaluatedModel], there: set[Evaluated]
) -> list[tuple[Evaluated, tuple[str, str]]]:
    """What ``first`` is compared with, each with its method and its model id."""
    baselines = [(first.run_id, method) for method in BASELINES]
    opponents = [(one, (one[1], one[1])) for one in baselines]
    vectors_only = f"{first.method}{VECTORS_ONLY}"
    if (first.run_id, vectors_only) in there and vectors_only not in {other.method for other in others}:
        opponents.append(((first.run_id, vectors_only), (vectors_only, first.model_id)))
    return opponents + [((other.run_id, other.method), (other.method, other.model_id)) for other in others]


def _add(sums: SplitSums, part: Targets) -> None:
    """Add the users of ``part`` by blocks; results are named by their number, as a method may be there twice."""
    seeds, items = user_hashes(part.user_ids), user_hashes(part.item_ids).view(np.int64)
    starts = np.arange(0, len(seeds) + BLOCK_USERS, BLOCK_USERS)
    ends = np.searchsorted(part.owners, starts)
    for number, (start, end) in enumerate(pairwise(ends)):
        if start < end:
            inside = slice(start, end)
            sums.add(
                seeds[starts[number] : starts[number + 1]],
                items[inside],
                part.owners[inside] - starts[number],
                {dimension: names[inside].to_numpy().astype(str) for dimension, names in part.labels.items()},
                {str(place): ranks[inside] for place, ranks in enumerate(part.ranks.values())},
            )


def _check_same_targets(
    first: EvaluatedModel, opponents: Sequence[tuple[tuple[str, str], TargetDifference]], split: SplitName
) -> None:
    for (method, model_id), found in opponents:
        name = method if model_id == method else f"{method} {model_id}"
        for targets, one in zip(found.targets, (f"{first.method} {first.model_id}", name), strict=True):
            if not targets:
                raise LearnSparkError(
                    f"compare: no user had a target on the {split} split when {one} was evaluated; compare on the "
                    "other split by --split"
                )
        if found.differ:
            raise LearnSparkError(
                f"compare: {first.method} {first.model_id} has {found.targets[0]:,} targets of {found.users[0]:,} "
                f"users, {name} has {found.targets[1]:,} of {found.users[1]:,}, and they differ ({found.in_one:,} "
                "users are in only one of them); evaluation_users was changed: move the three tables of evaluations "
                "away and evaluate again"
            )


def _named(found: MetricDifference, method: str, model_id: str) -> SliceDifference:
    return SliceDifference(
        against=method,
        model_id=model_id,
        dimension=found.dimension,
        slice=found.slice,
        metric=found.metric,
        first=found.first,
        other=found.value,
        difference=found.difference,
        items=found.items,
    )
