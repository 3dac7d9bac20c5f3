"""The figures of a study's rows: metrics by seed, parts of the test split, costs, and slices of the first seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds

from learn_spark.core.tables.scan import scan
from learn_spark.core.tables.workspace import Workspace
from learn_spark.evaluation.labels import BASELINES
from learn_spark.evaluation.results import VECTORS_ONLY, metric_rows, slice_rows
from learn_spark.evaluation.slices import DIMENSIONS
from learn_spark.model.manifest import read_manifest
from learn_spark.model.store import read_curve
from learn_spark.studies.finished import Trained

METRICS = ("HR@10", "NDCG@10", "HR@100", "NDCG@100")
PARTS = ("< 5 events", "5 and more", "same day", "other days")
RARE = ("unseen", "1-4")
MAIN = "NDCG@10"

Figures = Mapping[str, tuple[float, ...]]  # metric or part -> its value by seed


@dataclass(frozen=True)
class Costs:
    """What the trainings of a row cost. ``seconds``: mean of a train run; ``peak_mib``: the largest process, None where
    the system does not say; ``resumed``: some were cut off, and ``seconds`` is without what was before;
    ``reused_tower``: some have the tower of another model, and ``seconds`` is without its training.
    """

    parameters: int
    seconds: float
    peak_mib: int | None
    samples_per_second: float
    resumed: bool
    reused_tower: bool


@dataclass(frozen=True)
class SliceFigure:
    """NDCG@10 on a slice with its 95 % interval over users."""

    value: float
    low: float
    high: float
    users: int


@dataclass(frozen=True)
class Row:
    """A row of the table. ``rule``: the training rule (``training.rule``); baselines have that of the first row, whose
    events they count. ``runs``: seed -> the evaluate run that wrote the figures. Baselines have one run, and no
    ``validation`` (NDCG@10 by seed), ``costs`` and ``curve`` (validation NDCG@10 by epoch, first seed).
    """

    name: str
    method: str
    rule: str
    runs: Mapping[int, str]
    figures: Figures
    validation: tuple[float, ...] = ()
    costs: Costs | None = None
    curve: tuple[float, ...] = ()
    vectors_only: bool = False

    def mean(self, figure: str) -> float:
        """The mean over seeds; NaN where the data set has no such target."""
        return statistics.mean(self.figures[figure])


@dataclass(frozen=True)
class Study:
    """The rows in their order: baselines, then the plan's; ``slices``: dimension -> slice -> row -> figure."""

    rows: tuple[Row, ...]
    slices: Mapping[str, Mapping[str, Mapping[str, SliceFigure]]]
    failures: Mapping[str, str]

    @property
    def trained(self) -> tuple[Row, ...]:
        """The plan's rows, without those of vectors only."""
        return tuple(row for row in self.rows if row.costs is not None)


class Evaluations:
    """The evaluations of some runs on the test split: metrics of whole splits, and of PARTS."""

    def __init__(self, workspace: Workspace, runs: set[str]) -> None:
        self._metrics = {
            (row.run_id, row.method, row.metric): row.value
            for row in metric_rows(workspace, ds.field("run_id").isin(sorted(runs)) & (ds.field("split") == "test"))
        }
        self._ranked = {(run, method) for run, method, _ in self._metrics}
        self._parts = _parts(workspace, runs)

    def has(self, run: str, method: str) -> bool:
        """Whether the run ranked with the method."""
        return (run, method) in self._ranked

    def figures(self, runs: Mapping[str, str]) -> Figures:
        """METRICS and PARTS of ``runs`` (run -> method), in their order."""
        of_metrics = {
            metric: tuple(self._metrics.get((run, method, metric), math.nan) for run, method in runs.items())
            for metric in METRICS
        }
        return of_metrics | {
            part: tuple(self._parts[run, method, part] for run, method in runs.items()) for part in PARTS
        }


def collect(
    workspace: Workspace, trained: Sequence[Trained], dimensions: Sequence[str], failures: Mapping[str, str]
) -> Study:
    """The figures of trainings; no rows where there is none."""
    if not trained:
        return Study((), {}, dict(failures))
    evaluations = Evaluations(workspace, {one.run_id for one in trained})
    first = trained[0]
    rule = read_manifest(workspace.place / "models" / first.model_id).training_rule
    rows = [
        Row(name, method, rule, {first.seed: first.run_id}, evaluations.figures({first.run_id: method}))
        for method, name in BASELINES.items()
    ]
    for name in dict.fromkeys(one.row for one in trained):
        rows += _rows(workspace, evaluations, name, [one for one in trained if one.row == name])
    slices = {dimension: _slices(workspace, rows, dimension) for dimension in dimensions}
    return Study(tuple(rows), slices, dict(failures))


def _rows(workspace: Workspace, evaluations: Evaluations, name: str, trained: Sequence[Trained]) -> list[Row]:
    """The row, and where some seed's model has a reranker, a row of its vectors only: a seed whose reranker was no
    better on validation has the same figures in both.
    """
    folders = [workspace.place / "models" / one.model_id for one in trained]
    manifests = [read_manifest(folder) for folder in folders]
    curves = [read_curve(folder) for folder in folders]
    method = manifests[0].method
    vectors = f"{method}{VECTORS_ONLY}"
    runs = {one.seed: one.run_id for one in trained}
    peaks = [one.peak_mib for one in trained if one.peak_mib is not None]
    rows = [
        Row(
            name=name,
            method=method,
            rule=manifests[0].training_rule,
            runs=runs,
            figures=evaluations.figures(dict.fromkeys(runs.values(), method)),
            validation=tuple(manifest.validation[MAIN] for manifest in manifests),
            costs=Costs(
                parameters=manifests[0].parameters,
                seconds=statistics.mean(one.seconds for one in trained),
                peak_mib=max(peaks, default=None),
                samples_per_second=statistics.mean(
                    statistics.median(point["samples_per_second"] for point in curve) for curve in curves
                ),
                resumed=any(one.resumed for one in trained),
                reused_tower=any(one.reused_tower for one in trained),
            ),
            curve=tuple(point[f"validation {MAIN}"] for point in curves[0]),
        )
    ]
    if any(evaluations.has(run, vectors) for run in runs.values()):
        methods = {run: vectors if evaluations.has(run, vectors) else method for run in runs.values()}
        figures = evaluations.figures(methods)
        method = methods[next(iter(methods))]
        rows.append(Row(f"{name}, vectors only", method, rows[0].rule, runs, figures, vectors_only=True))
    return rows


def _parts(workspace: Workspace, runs: set[str]) -> dict[tuple[str, str, str], float]:
    """NDCG@10 by (run, method, part of the test split): the mean over the part's targets; NaN where it has none."""
    columns = ["method", "rank", "popularity", "same_day"]
    values: dict[tuple[str, str, str], float] = {}
    for run in sorted(runs):
        where = (ds.field("run_id") == run) & (ds.field("split") == "test")
        of_run = scan(workspace, "evaluation_users", where=where, columns=columns)
        for method in pc.unique(of_run["method"]).to_pylist():
            targets = of_run.filter(pc.equal(of_run["method"], method))
            rank = targets["rank"].to_numpy()
            gain = np.where(rank <= 10, 1.0 / np.log2(rank + 1.0), 0.0)
            rare = np.isin(targets["popularity"].to_numpy(zero_copy_only=False), RARE)
            same = targets["same_day"].to_numpy(zero_copy_only=False) == "yes"
            for part, mask in zip(PARTS, (rare, ~rare, same, ~same), strict=True):
                values[run, method, part] = float(gain[mask].mean()) if mask.any() else math.nan
    return values


def _slices(workspace: Workspace, rows: Sequence[Row], dimension: str) -> dict[str, dict[str, SliceFigure]]:
    """slice -> row -> NDCG@10 of the row's first seed, in the dimension's order; the whole split last."""
    names: dict[tuple[str, str], list[str]] = {}  # rows of equal settings share a run
    for study_row in rows:
        names.setdefault((next(iter(study_row.runs.values())), study_row.method), []).append(study_row.name)
    slices: dict[str, dict[str, SliceFigure]] = {}
    runs = sorted({run for run, _ in names})
    where = ds.field("run_id").isin(runs) & (ds.field("split") == "test") & (ds.field("metric") == MAIN)
    for row in slice_rows(workspace, where):
        if row.dimension in (dimension, "all"):
            for name in names.get((row.run_id, row.method), ()):
                slices.setdefault(row.slice, {})[name] = SliceFigure(row.value, row.low, row.high, row.users)
    order = DIMENSIONS.get(dimension) or ()
    known = sorted(set(slices) - {"all"}, key=lambda part: (order.index(part) if part in order else len(order), part))
    return {part: slices[part] for part in [*known, *(["all"] if "all" in slices else [])]}
