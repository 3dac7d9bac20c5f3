"""What the front page is about: the model of the release in force, and what it is worth in one plain sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from learn_spark.core.tables.runs import Run
from learn_spark.core.tables.workspace import Workspace
from learn_spark.evaluation.labels import BASELINES, FIRST_METRIC, method_label
from learn_spark.features.ledger import LedgerRow
from learn_spark.report.figures import MetricTable, metric_tables
from learn_spark.report.plots.text import percent
from learn_spark.report.templates import Fact

HITS = "HR@10"


@dataclass(frozen=True)
class Measured:
    """The figures of one model: its newest evaluation that has any, and its cuts; None and empty before one."""

    evaluated: Run | None
    tables: tuple[MetricTable, ...]


NOTHING = Measured(None, ())


@dataclass(frozen=True)
class Compared:
    """A metric of what is released beside that of the best baseline, ``best``: (its label, its value), if any."""

    label: str
    value: float
    best: tuple[str, float] | None


def measured(workspace: Workspace, runs: Sequence[Run], model_id: str | None) -> Measured:
    """The newest evaluation of a model. ``runs``: oldest first."""
    for run in reversed(runs):
        if model_id and run.job == "evaluate" and run.status == "done" and run.inputs.get("model") == model_id:
            tables = metric_tables(workspace, run)
            if tables:
                return Measured(run, tuple(tables))
    return NOTHING


def released_line(trained: str, names: Sequence[str]) -> str:
    """The label of what a release has of the method ``trained``: its vectors, without a reranker."""
    alone = f"{trained}, vectors only"
    return alone if alone in names else trained


def compared(table: MetricTable, trained: str, metric: str) -> Compared | None:
    """The metric of the vectors of ``trained`` (a label) and of the best baseline; None where it was not measured."""
    values = _values(table, metric)
    label = released_line(trained, list(values))
    if label not in values:
        return None
    known = {name: values[name] for name in BASELINES.values() if name in values}
    best = max(known, key=lambda name: known[name], default=None)
    return Compared(label, values[label], None if best is None else (best, known[best]))


def sentence(release: LedgerRow | None, measure: Measured, method: str | None) -> str:
    """What is released and what it is worth. ``method``: the short name of the model that ``measure`` is of."""
    start = "" if release is not None else "Nothing is released yet. "
    found = compared(measure.tables[0], method_label(method), HITS) if measure.tables and method else None
    if found is None:
        if release is not None:
            return f"Release {release.release_id} is in force; what it is worth has not been measured."
        return f"{start}{'The newest model has not been evaluated.' if method else 'No model has been trained.'}"
    thing = "a right item" if f"recall@{HITS.partition('@')[2]}" in measure.tables[0].names else "the right item"
    whose = (
        "the released vectors"
        if release is not None
        else f"the vectors of the newest {method_label(method or '')} model"
    )
    if found.best is None:
        share = percent(found.value)
        return f"{start}{whose[0].upper()}{whose[1:]} have {thing} among their first ten for {share} of users."
    mine, other = _apart(found.value, found.best[1])
    return (
        f"{start}With {whose}, {thing} is among the first ten for {mine} of users; "
        f"with the best simple method, {found.best[0]}, for {other}."
    )


def first_fact(table: MetricTable, trained: str, *, released: bool) -> Fact | None:
    """The first figure of a page: the vectors against the best baseline, and the reranker that is not released."""
    metric = FIRST_METRIC if FIRST_METRIC in table.names else table.names[0]
    found = compared(table, trained, metric)
    if found is None:
        return None
    note = "no baseline was evaluated"
    if found.best is not None:
        note = f"best baseline: {found.best[0]}, {found.best[1]:.4f}"
    if found.label != trained:
        note += f"; with the reranker, which is not released: {_values(table, metric)[trained]:.4f}"
    what = "released vectors" if released else "vectors"
    return Fact(f"{trained}, {what}: {metric} on {table.split}", f"{found.value:.4f}", note)


def _values(table: MetricTable, metric: str) -> Mapping[str, float]:
    if metric not in table.names:
        return {}
    at = table.names.index(metric)
    return {name: cell.value for name, cells in table.lines if (cell := cells[at]) is not None}


def _apart(one: float, other: float) -> tuple[str, str]:
    """Both shares as percentages, with as many places as tell them apart."""
    texts = percent(one), percent(other)
    return texts if texts[0] != texts[1] or one == other else (f"{100 * one:.2f} %", f"{100 * other:.2f} %")
