"""Two methods on the same users: paired differences with intervals, on the whole split and by slice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.runs import Run, all_runs, run_order
from learn_spark.core.tables.scan import scan
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.splits.split import SplitName
from learn_spark.evaluation.bootstrap import Difference, paired_differences
from learn_spark.evaluation.labels import BASELINES
from learn_spark.evaluation.results import VECTORS_ONLY, ResultKey, metric_rows, written_by
from learn_spark.evaluation.slices import DIMENSIONS, slices
from learn_spark.model.scoring.metrics import per_user

NAMED_IN_ERRORS = 5
RANK_COLUMNS = ["run_id", "method", "user_id", "item_id", "rank"]


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
    ranked = _ranks(workspace, [first, *others], split)
    for one in (first, *others):
        if (one.run_id, one.method) not in ranked:
            raise LearnSparkError(
                f"compare: no user had a target on the {split} split when {one.method} {one.model_id} was evaluated "
                f"(run {one.run_id}); compare on the other split by --split"
            )
    first_rows = ranked[first.run_id, first.method]
    opponents = [(method, method, ranked[first.run_id, method]) for method in BASELINES]
    vectors_only = f"{first.method}{VECTORS_ONLY}"
    if (first.run_id, vectors_only) in ranked and vectors_only not in {other.method for other in others}:
        opponents.append((vectors_only, first.model_id, ranked[first.run_id, vectors_only]))
    opponents += [(other.method, other.model_id, ranked[other.run_id, other.method]) for other in others]
    for method, model_id, rows in opponents:
        _check_same_targets(first, first_rows, method if model_id == method else f"{method} {model_id}", rows)
    differences = _differences(first_rows, _labels(workspace, first, split), opponents, k, samples, seed)
    return Comparison(first, split, len(pc.unique(first_rows["user_id"])), samples, tuple(differences))


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


def _ranks(
    workspace: Workspace, results: Iterable[EvaluatedModel], split: SplitName
) -> dict[tuple[str, str], pa.Table]:
    """RANK_COLUMNS of evaluation_users by (run, method), ordered by user and target."""
    runs = sorted({result.run_id for result in results})
    where = pc.field("run_id").isin(runs) & (pc.field("split") == split)
    rows = scan(workspace, "evaluation_users", where=where, columns=RANK_COLUMNS)
    rows = rows.sort_by([(name, "ascending") for name in ("run_id", "method", "user_id", "item_id")])
    keys = pc.binary_join_element_wise(rows["run_id"], rows["method"], "\n").dictionary_encode().combine_chunks()
    starts = np.flatnonzero(np.diff(keys.indices.to_numpy(), prepend=-1))
    ends = [*starts[1:], len(rows)] if len(rows) else []
    ranks = {}
    for start, end in zip(starts.tolist(), ends, strict=True):
        run_id, _, method = keys[start].as_py().partition("\n")
        ranks[run_id, method] = rows.slice(start, end - start)
    return ranks


def _labels(workspace: Workspace, result: EvaluatedModel, split: SplitName) -> dict[str, np.ndarray]:
    """The slices of each target of a result by dimension, ordered as ``_ranks``."""
    where = (pc.field("run_id") == result.run_id) & (pc.field("method") == result.method) & (pc.field("split") == split)
    rows = scan(workspace, "evaluation_users", where=where, columns=["user_id", "item_id", *DIMENSIONS])
    rows = rows.sort_by([("user_id", "ascending"), ("item_id", "ascending")])
    return {dimension: rows[dimension].to_numpy().astype(str) for dimension in DIMENSIONS}


def _check_same_targets(first: EvaluatedModel, first_rows: pa.Table, name: str, other_rows: pa.Table) -> None:
    if all(first_rows[column].equals(other_rows[column]) for column in ("user_id", "item_id")):
        return
    first_users, other_users = (set(rows["user_id"].to_pylist()) for rows in (first_rows, other_rows))
    raise LearnSparkError(
        f"compare: {first.method} {first.model_id} has {len(first_rows):,} targets of {len(first_users):,} users, "
        f"{name} has {len(other_rows):,} of {len(other_users):,}, and they differ ({len(first_users ^ other_users):,} "
        "users are in only one of them); evaluation_users was changed: move the three tables of evaluations away and "
        "evaluate again"
    )


def _differences(
    first_rows: pa.Table,
    labels: Mapping[str, np.ndarray],
    opponents: Sequence[tuple[str, str, pa.Table]],
    k: int,
    samples: int,
    seed: int,
) -> Iterator[SliceDifference]:
    owners = np.unique(first_rows["user_id"].to_numpy(), return_inverse=True)[1]
    items = first_rows["item_id"].to_numpy()
    ranks = [rows["rank"].to_numpy() for rows in (first_rows, *(rows for _, _, rows in opponents))]
    for part in slices(labels, owners):
        names = (f"HR@{k}", f"NDCG@{k}")
        values = [per_user(method_ranks[part.mask], [k], part.offsets) for method_ranks in ranks]
        first_values = np.stack([values[0][name] for _ in opponents for name in names], axis=1)
        other_values = np.stack([metrics[name] for metrics in values[1:] for name in names], axis=1)
        differences = paired_differences(first_values, other_values, samples=samples, seed=seed)
        distinct = len(np.unique(items[part.mask]))
        for column, difference in enumerate(differences):
            method, model_id, _ = opponents[column // len(names)]
            yield SliceDifference(
                against=method,
                model_id=model_id,
                dimension=part.dimension,
                slice=part.name,
                metric=names[column % len(names)],
                first=float(first_values[:, column].mean()),
                other=float(other_values[:, column].mean()),
                difference=difference,
                items=distinct,
            )
