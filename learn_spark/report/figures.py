"""The figures of an evaluation: metrics with their intervals, and slices as plots."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow.dataset as ds
from scipy.stats import binomtest

from learn_spark.core.tables.runs import Run
from learn_spark.core.tables.workspace import Workspace
from learn_spark.evaluation.labels import (
    DIMENSIONS,
    FIRST_METRIC,
    WHOLE,
    in_order,
    method_label,
    place_of_dimension,
    place_of_slice,
)
from learn_spark.evaluation.results import MetricRow, ResultKey, SliceRow, metric_rows, slice_rows, written_by
from learn_spark.report.plots.dots import Group, Value, draw_dots
from learn_spark.report.plots.render import Plot
from learn_spark.report.plots.text import slug

SPLITS = ("test", "validation")
OF_LISTS = ("coverage@", "Gini@", "head@", "novelty@")  # of what is offered: not the better the higher


@dataclass(frozen=True)
class Cell:
    """A metric of a method; ``best`` of its column."""

    value: float
    low: float | None
    high: float | None
    best: bool


@dataclass(frozen=True)
class OfferedLine:
    """What a method offers its users as a whole in their first ``k``: a value of each of OF_LISTS."""

    label: str
    k: int
    values: tuple[float, ...]


@dataclass(frozen=True)
class MetricTable:
    """All methods on one cut: ``lines`` are (label, a cell or None for each of ``names``)."""

    split: str
    names: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    users: int
    catalogue: int
    intervals: str
    plots: tuple[Plot, ...]
    offered: tuple[OfferedLine, ...]


def metric_tables(workspace: Workspace, evaluated: Run) -> list[MetricTable]:
    """One table a cut, the test split first; none where the run's figures are not there."""
    of_run = _of_run(workspace, evaluated)
    every = metric_rows(workspace, of_run)
    rows = [row for row in every if not row.metric.startswith(OF_LISTS)]
    whole = {
        (row.method, row.split, row.metric): row
        for row in slice_rows(workspace, of_run & (ds.field("dimension") == WHOLE))
    }
    tables = []
    for split in SPLITS:
        found = [row for row in rows if row.split == split]
        if not found:
            continue
        by_place = {(row.method, row.metric): row for row in found}
        names = tuple(name for name in dict.fromkeys(row.metric for row in found) if not _repeats_hits(name, found))
        best = {name: max(row.value for row in found if row.metric == name) for name in names}
        lines = []
        for method in in_order(row.method for row in found):
            cells: list[Cell | None] = []
            for name in names:
                row = by_place.get((method, name))
                if row is None:
                    cells.append(None)
                    continue
                low, high = _interval(row, whole.get((method, split, name)))
                cells.append(Cell(row.value, low, high, row.value == best[name] > 0))
            lines.append((method_label(method), tuple(cells)))
        tables.append(
            MetricTable(
                split,
                names,
                tuple(lines),
                found[0].users,
                found[0].catalogue,
                "95 % intervals by the bootstrap over users"
                if whole
                else "Wilson's 95 % intervals, for hit rates alone",
                tuple(_metric_plots(split, names, lines)),
                tuple(_offered([row for row in every if row.split == split])),
            )
        )
    return tables


def slice_plots(workspace: Workspace, evaluated: Run) -> list[Plot]:
    """A plot for each dimension of the run's slices, on the test split if it has slices."""
    rows = slice_rows(workspace, _of_run(workspace, evaluated) & (ds.field("dimension") != WHOLE))
    split = next((split for split in SPLITS if any(row.split == split for row in rows)), None)
    metrics = {row.metric for row in rows}
    metric = FIRST_METRIC if FIRST_METRIC in metrics else min(metrics, default=None)
    shown = [row for row in rows if row.split == split and row.metric == metric]
    plots = []
    for dimension in sorted({row.dimension for row in shown}, key=place_of_dimension):
        mine = [row for row in shown if row.dimension == dimension]
        methods = in_order(row.method for row in mine)
        groups = []
        for name in dict.fromkeys(row.slice for row in sorted(mine, key=lambda row: place_of_slice(row.slice))):
            inside = {row.method: row for row in mine if row.slice == name}
            first = next(iter(inside.values()))
            values = {method_label(method): Value(row.value, row.low, row.high) for method, row in inside.items()}
            groups.append(Group(name, f"{_many(first.users, 'user')}, {_many(first.items, 'item')}", values))
        plots.append(
            draw_dots(
                f"slice-{slug(dimension)}",
                DIMENSIONS.get(dimension, dimension),
                [method_label(method) for method in methods],
                groups,
                group_name="slice",
                x_name=f"{metric} on the {split} split, 95 % interval",
            )
        )
    return plots


def _of_run(workspace: Workspace, evaluated: Run) -> ds.Expression:
    """Whether a row is of the run; if its result was there already, of the run that wrote it."""
    run_id = written_by(workspace, ResultKey.of_run(evaluated))
    return ds.field("run_id") == (run_id or "")


def _offered(rows: Sequence[MetricRow]) -> Iterator[OfferedLine]:
    ks = [int(row.metric.partition("@")[2]) for row in rows if row.metric.startswith(OF_LISTS)]
    for method in in_order(row.method for row in rows) if ks else ():
        values = {row.metric: row.value for row in rows if row.method == method}
        wanted = [f"{name}{min(ks)}" for name in OF_LISTS]
        if all(name in values for name in wanted):
            yield OfferedLine(method_label(method), min(ks), tuple(values[name] for name in wanted))


def _repeats_hits(name: str, rows: Sequence[MetricRow]) -> bool:
    """Whether a metric is the recall of users with one target each, which is their hit rate."""
    hits = {row.method: row.value for row in rows if row.metric == name.replace("recall@", "HR@")}
    return name.startswith("recall@") and all(row.value == hits.get(row.method) for row in rows if row.metric == name)


def _interval(row: MetricRow, whole: SliceRow | None) -> tuple[float | None, float | None]:
    if whole is not None:
        return whole.low, whole.high
    if re.fullmatch(r"HR@\d+", row.metric):
        return wilson(row.value, row.users)
    return None, None


def wilson(share: float, users: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share of ``users`` independent ones; ValueError for no users."""
    if users < 1:
        raise ValueError(f"a share of {users} users has no interval")
    interval = binomtest(round(share * users), users).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _metric_plots(split: str, names: Sequence[str], lines: Sequence[tuple[str, tuple[Cell | None, ...]]]) -> list[Plot]:
    """The two metrics that a reader looks at first, method by method."""
    plots = []
    for name in [wanted for wanted in (FIRST_METRIC, "HR@10") if wanted in names]:
        at = names.index(name)
        groups = [
            Group(label, "", {name: Value(cell.value, cell.low, cell.high)})
            for label, cells in lines
            if (cell := cells[at]) is not None
        ]
        plots.append(
            draw_dots(
                f"metric-{split}-{slug(name)}",
                f"{name} on the {split} split",
                [name],
                groups,
                group_name="method",
                x_name=name,
            )
        )
    return plots


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
