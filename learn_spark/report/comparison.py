"""A comparison for the terminal, and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import groupby

from learn_spark.core.console import Reporter
from learn_spark.evaluation.compare import Comparison, SliceDifference
from learn_spark.pipeline.summary import METHODS


def as_json(found: Comparison) -> str:
    """One object; each of ``differences`` tells its slice, both means, and the difference with interval and p."""
    differences = [asdict(one) for one in found.differences]
    for one in differences:
        difference = one.pop("difference")
        one |= {"difference": difference.pop("value"), **difference}
    first = asdict(found.first) | {"tables": dict(found.first.tables)}
    told = {"split": found.split, "users": found.users, "samples": found.samples, "differences": differences}
    return json.dumps({"first": first, **told})


def show(found: Comparison, console: Reporter) -> None:
    """The whole cut with both metrics, then a table a contender with NDCG on every slice."""
    mine = _label(found.first.method, found.first.model_id)
    title = f"{mine} on the {found.split} split ({found.users:,} users; {found.first.protocol})"
    whole = [one for one in found.differences if one.dimension == "all"]
    columns = ["against", "metric", "first", "other", "difference", "95 % interval", "p"]
    console.table(title, columns, [[_label(one.against, one.model_id), one.metric, *_figures(one)] for one in whole])
    parts = [one for one in found.differences if one.dimension != "all" and one.metric.startswith("NDCG")]
    parts.sort(key=lambda one: [(w.against, w.model_id) for w in whole].index((one.against, one.model_id)))
    for (against, model_id, metric), group in groupby(parts, lambda one: (one.against, one.model_id, one.metric)):
        rows = [
            [f"{one.dimension}: {one.slice}", f"{one.difference.users:,}", f"{one.items:,}", *_figures(one)]
            for one in group
        ]
        columns = ["slice", "users", "items", "first", "other", "difference", "95 % interval", "p"]
        console.table(f"{metric}: {mine} against {_label(against, model_id)}", columns, rows)
    console.line()
    console.line(
        f"Differences are first minus other: paired bootstrap over users, {found.samples:,} resamples; p is two-sided, "
        "and not corrected for how many slices are looked at."
    )


def _label(method: str, model_id: str) -> str:
    name = METHODS.get(method, method)
    return name if model_id == method else f"{name} {model_id}"


def _figures(one: SliceDifference) -> list[str]:
    own = one.difference
    return [
        f"{one.first:.4f}",
        f"{one.other:.4f}",
        f"{own.value:+.4f}",
        f"{own.low:+.4f} to {own.high:+.4f}",
        f"{own.p:.4f}",
    ]
