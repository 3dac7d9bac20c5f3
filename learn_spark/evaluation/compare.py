"""Two methods on the same users: paired differences with intervals, on a whole cut and slice by slice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.runs import Run, all_runs
from learn_spark.core.tables.scan import scan
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.splits.split import SplitName
from learn_spark.evaluation.bootstrap import Difference, paired_differences
from learn_spark.evaluation.results import VECTORS_ONLY, ResultKey, written_by
from learn_spark.evaluation.slices import DIMENSIONS, slices
from learn_spark.model.scoring.metrics import per_user

BASELINES = ("popularity", "markov", "frozen")
NAMED_IN_ERRORS = 5


@dataclass(frozen=True)
class Evaluated:
    """A tower's result as evaluations holds it. Results are comparable where ``protocol`` and ``tables`` (versions of
    user_histories and item_index) are the same.
    """

    run_id: str
    method: str
    model_id: str
    protocol: str
    tables: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class SliceDifference:
    """First minus other in one metric on one slice: both means, their difference, and different target items."""

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
    """``first`` against everybody else, whole cut first, then its slices."""

    first: Evaluated
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
    """Compare the first of ``names`` (runs of evaluate or train, or model ids) with the other names, with the baselines
    of the same evaluation (its vectors without the reranker among them), and with the newest result of every other
    kind of tower on the same users.

    Metrics are HR@k and NDCG@k. Raises LearnSparkError for a name that is not of an evaluated model or is given twice,
    and where protocols, table versions, users or targets differ.
    """
    every = _evaluated(workspace)
    runs = {run.run_id: run for run in all_runs(workspace)}
    chosen = [_find(workspace, name, every, runs) for name in names]
    first = chosen[0]
    for number, other in enumerate(chosen[1:], 1):
        if other in chosen[:number]:
            raise LearnSparkError(
                f"compare: {names[number]} names the {other.method} model {other.model_id} a second time"
            )
        _check_comparable(first, other)
    kinds = {one.method for one in chosen}
    rivals = {
        one.method: one
        for one in every
        if one.method not in kinds and (one.protocol, one.tables) == (first.protocol, first.tables)
    }
    others = [*chosen[1:], *(rivals[kind] for kind in sorted(rivals))]
    ranked = _ranks(workspace, [first, *others], split)
    mine = ranked[first.run_id, first.method]
    opponents = [(method, method, ranked[first.run_id, method]) for method in BASELINES]
    without = f"{first.method}{VECTORS_ONLY}"
    if (first.run_id, without) in ranked and without not in {other.method for other in others}:
        opponents.append((without, first.model_id, ranked[first.run_id, without]))
    opponents += [(other.method, other.model_id, ranked[other.run_id, other.method]) for other in others]
    for method, model_id, rows in opponents:
        _check_same_targets(first, mine, method if model_id == method else f"{method} {model_id}", rows)
    differences = _differences(mine, opponents, k, samples, seed)
    return Comparison(first, split, len(pc.unique(mine["user_id"])), samples, tuple(differences))


def _evaluated(workspace: Workspace) -> list[Evaluated]:
    """Every evaluation result, oldest first; LearnSparkError where there is none."""
    found = {}
    for row in read_rows(workspace.table("evaluations")):
        repeats_model = row["method"].endswith(VECTORS_ONLY) and row["run_id"] in found
        if row["method"] not in BASELINES and not repeats_model:
            tables = tuple((name, row["tables"][name]) for name in ("user_histories", "item_index"))
            found[row["run_id"]] = Evaluated(row["run_id"], row["method"], row["model_id"], row["protocol"], tables)
    if not found:
        raise LearnSparkError(f"compare: no model has been evaluated in {workspace.root}; run the evaluate stage first")
    return [found[run_id] for run_id in sorted(found)]


def _find(workspace: Workspace, name: str, every: Sequence[Evaluated], runs: dict[str, Run]) -> Evaluated:
    run, wanted, model = runs.get(name), None, name
    if run is not None and run.job == "evaluate":
        wanted = written_by(workspace, ResultKey.of_run(run))
    elif run is not None:
        model = run.model_id or ""
        if not model:
            raise LearnSparkError(f"compare: {name} is a run of {run.job}; name a run of evaluate or train, or a model")
    found = [one for one in every if (one.run_id == wanted if wanted else one.model_id == model)]
    if not found:
        known = ", ".join(
            f"{one.model_id} ({one.method}, run {one.run_id})" for one in every[: -NAMED_IN_ERRORS - 1 : -1]
        )
        raise LearnSparkError(f"compare: nothing was evaluated under {name!r}; the newest results are {known}")
    return found[-1]


def _check_comparable(first: Evaluated, other: Evaluated) -> None:
    for what, ours, theirs in (
        ("protocol", first.protocol, other.protocol),
        *((f"version of {name}", ours, dict(other.tables)[name]) for name, ours in first.tables),
    ):
        if ours != theirs:
            raise LearnSparkError(
                f"compare: {first.method} {first.model_id} and {other.method} {other.model_id} cannot be compared: "
                f"their {what} differs ({ours} and {theirs}); evaluate both on the same"
            )


def _ranks(workspace: Workspace, chosen: Iterable[Evaluated], split: SplitName) -> dict[tuple[str, str], pa.Table]:
    """Rows of evaluation_users by (run, method), ordered by user and target."""
    runs = sorted({one.run_id for one in chosen})
    rows = scan(workspace, "evaluation_users", where=pc.field("run_id").isin(runs) & (pc.field("split") == split))
    rows = rows.sort_by([(name, "ascending") for name in ("run_id", "method", "user_id", "item_id")])
    keys = pc.binary_join_element_wise(rows["run_id"], rows["method"], "\n").dictionary_encode().combine_chunks()
    starts = np.flatnonzero(np.diff(keys.indices.to_numpy(), prepend=-1))
    ends = [*starts[1:], len(rows)]
    found = {}
    for start, end in zip(starts.tolist(), ends, strict=True):
        run_id, _, method = keys[start].as_py().partition("\n")
        found[run_id, method] = rows.slice(start, end - start)
    return found


def _check_same_targets(first: Evaluated, ours: pa.Table, name: str, theirs: pa.Table) -> None:
    if all(ours[column].equals(theirs[column]) for column in ("user_id", "item_id")):
        return
    mine, others = (set(rows["user_id"].to_pylist()) for rows in (ours, theirs))
    raise LearnSparkError(
        f"compare: {first.method} {first.model_id} has {len(ours):,} targets of {len(mine):,} users, {name} "
        f"{len(theirs):,} of {len(others):,}, and they are not the same ({len(mine ^ others):,} users are of one "
        "alone); evaluation_users was changed: move the three tables of evaluations away and evaluate again"
    )


def _differences(
    mine: pa.Table, opponents: Sequence[tuple[str, str, pa.Table]], k: int, samples: int, seed: int
) -> Iterator[SliceDifference]:
    owners = np.unique(mine["user_id"].to_numpy(), return_inverse=True)[1]
    items = mine["item_id"].to_numpy()
    labels = {dimension: mine[dimension].to_numpy().astype(str) for dimension in DIMENSIONS}
    ranks = [rows["rank"].to_numpy() for rows in (mine, *(rows for _, _, rows in opponents))]
    for part in slices(labels, owners):
        names = (f"HR@{k}", f"NDCG@{k}")
        values = [per_user(found[part.mask], [k], part.offsets) for found in ranks]
        ours = np.stack([values[0][name] for _ in opponents for name in names], axis=1)
        theirs = np.stack([other[name] for other in values[1:] for name in names], axis=1)
        found = paired_differences(ours, theirs, samples=samples, seed=seed)
        distinct = len(np.unique(items[part.mask]))
        for column, difference in enumerate(found):
            method, model_id, _ = opponents[column // len(names)]
            yield SliceDifference(
                against=method,
                model_id=model_id,
                dimension=part.dimension,
                slice=part.name,
                metric=names[column % len(names)],
                first=float(ours[:, column].mean()),
                other=float(theirs[:, column].mean()),
                difference=difference,
                items=distinct,
            )
