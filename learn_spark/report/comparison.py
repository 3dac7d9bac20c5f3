"""A comparison of methods: tables for the terminal, and all figures for JSON."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby

from learn_spark.core.console import Reporter
from learn_spark.core.table_text import Cell, Column
from learn_spark.evaluation.compare import Comparison, SliceDifference
from learn_spark.evaluation.labels import method_label


def _record(comparison: Comparison, console: Reporter) -> None:
    """Each entry of ``differences`` has its slice, both means, the difference, its interval and p."""
    differences = [asdict(one) for one in comparison.differences]
    for one in differences:
        difference = one.pop("difference")
        one |= {"difference": difference.pop("value"), **difference}
    first = asdict(comparison.first) | {"tables": dict(comparison.first.tables)}
    of_split = {name: getattr(comparison, name) for name in ("split", "users", "samples")}
    console.answer({"first": first, **of_split, "differences": differences})


def show(comparison: Comparison, console: Reporter) -> None:
    """Print both metrics over all users of the split, then a table per contender with NDCG on every slice.

    In JSON ``differences`` has both metrics on every slice, in place of the tables.
    """
    _record(comparison, console)
    label = _label(comparison.first.method, comparison.first.model_id)
    title = f"{label} on the {comparison.split} split ({comparison.users:,} users; {comparison.first.protocol})"
    whole = [one for one in comparison.differences if one.dimension == "all"]
    figures = [Column("first", ".4f"), Column("other", ".4f"), Column("difference", "+.4f"), Column("95 % interval")]
    figures.append(Column("p", ".4f"))
    columns: list[str | Column] = ["against", "metric", *figures]
    console.table(title, columns, [[_label(one.against, one.model_id), one.metric, *_figures(one)] for one in whole])
    parts = [one for one in comparison.differences if one.dimension != "all" and one.metric.startswith("NDCG")]
    parts.sort(key=lambda one: [(w.against, w.model_id) for w in whole].index((one.against, one.model_id)))
    for (against, model_id, metric), group in groupby(parts, lambda one: (one.against, one.model_id, one.metric)):
        rows = [[f"{one.dimension}: {one.slice}", one.difference.users, one.items, *_figures(one)] for one in group]
        columns = ["slice", "users", "items", *figures]
        console.table(f"{metric}: {label} against {_label(against, model_id)}", columns, rows)
    console.line()
    console.line(
        "A difference is first minus other. Intervals: paired bootstrap over users, "
        f"{comparison.samples:,} resamples. p is two-sided and not corrected for the number of slices."
    )


def _label(method: str, model_id: str) -> str:
    name = method_label(method)
    return name if model_id == method else f"{name} {model_id}"


def _figures(one: SliceDifference) -> list[Cell]:
    difference = one.difference
    interval = f"{difference.low:+.4f} to {difference.high:+.4f}"
    return [one.first, one.other, difference.value, interval, difference.p]
