"""Dot charts: values with intervals, one group of rows per slice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from learn_spark.report.plots.render import Plot, rows_of, to_svg
from learn_spark.report.plots.style import FONT, TEXT, WIDTH, axis, colour, colours_of, shapes_of
from learn_spark.report.plots.text import NUMBER, Form

LABEL, STEP, GAP = 18, 13, 10
LETTER = 8.0  # an upper bound of a bold letter's mean width, for labels that share a line with a note


@dataclass(frozen=True)
class Value:
    """A value and its interval; both bounds are None if there is no interval, ``high`` alone if it has no upper end."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Group:
    """A slice: its name, its size as text, and the value of each series that has one."""

    label: str
    note: str
    values: Mapping[str, Value]


def draw_dots(
    key: str,
    title: str,
    series: Sequence[str],
    groups: Sequence[Group],
    *,
    group_name: str,
    x_name: str,
    form: Form = NUMBER,
) -> Plot:
    """One row per group and series, on an axis that includes 0: a mark at the value and a bar over the interval.

    Raises ValueError if there is no value, or if a value or a bound of an interval is not finite.
    """
    drawn = [value for group in groups for name, value in group.values.items() if name in series]
    if not drawn:
        raise ValueError(f"{title}: {len(groups)} groups have no value of {', '.join(series) or 'no series'}")
    bounds = [bound for v in drawn for bound in (v.value, v.low, v.high) if bound is not None]
    if not all(map(math.isfinite, bounds)):
        raise ValueError(
            f"{title}: {sum(not math.isfinite(b) for b in bounds)} of {len(bounds)} figures are not finite"
        )
    words = ". ".join(_words(name, groups, form) for name in series if any(name in g.values for g in groups))
    return Plot(
        key=key,
        title=title,
        words=words,
        svg=to_svg(key, title, words, _chart(series, groups, bounds, x_name, form)),
        legend=tuple(series) if len(series) > 1 else (),
        head=(group_name, "size", *series),
        rows=tuple((g.label, g.note, *(_cell(g.values.get(name), form) for name in series)) for g in groups),
    )


def _chart(
    series: Sequence[str], groups: Sequence[Group], bounds: Sequence[float], x_name: str, form: Form
) -> alt.LayerChart:
    domain = [min(0.0, *bounds), max(0.0, *bounds)]
    labels, values, height = _places(series, groups, domain[1])
    x = alt.X(
        "value:Q",
        scale=alt.Scale(domain=domain if domain[0] < domain[1] else [0.0, 1.0], nice=5),
        axis=axis(title=x_name, labelSeparation=18, tickCount=5, labelExpr=form.label),
    )
    y = alt.Y("y:Q", scale=alt.Scale(domain=[0, height], nice=False, reverse=True), axis=None)
    bars = alt.Chart(rows_of([row for row in values if row["low"] is not None])).mark_rule(
        strokeWidth=2.5, strokeCap="round", opacity=0.75, aria=False
    )
    marks = alt.Chart(rows_of(values)).mark_point(
        filled=True, size=81, opacity=1, stroke=colour("paper"), strokeWidth=1, aria=False
    )
    text = alt.Chart(rows_of(labels))
    name = text.mark_text(
        align="left", font=FONT, fontSize=TEXT, fontWeight=600, color=colour("ink"), limit=WIDTH - 24, aria=False
    )
    note = text.mark_text(align="left", font=FONT, fontSize=TEXT, color=colour("soft"), limit=WIDTH - 24, aria=False)
    return alt.layer(
        bars.encode(x=alt.X("low:Q", title=x_name), x2="high:Q", y=y, color=colours_of(list(series))),
        marks.encode(x=x, y=y, color=colours_of(list(series)), shape=shapes_of(list(series))),
        name.encode(x=alt.value(2), y=y, text="label:N"),
        note.encode(x=alt.X("note_x:Q", scale=None, axis=None), y=alt.Y("note_y:Q"), text="note:N"),
        height=height,
    ).resolve_scale(x="shared")


def _places(
    series: Sequence[str], groups: Sequence[Group], highest: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], float]:
    """(rows of labels, rows of values, height), y in pixels from the top. A note that does not fit on the line of its
    label is placed on the next line. An interval without an upper end is drawn up to ``highest``.
    """
    labels, values = [], []
    top = 0.0
    for group in groups:
        one_line = LETTER * (len(group.label) + len(group.note)) + 10 < WIDTH - 24
        labels.append({
            "label": group.label,
            "note": group.note,
            "y": top + LABEL / 2,
            "note_x": 8 + LETTER * len(group.label) if one_line else 2,
            "note_y": top + LABEL / 2 + (0 if one_line else LABEL - 2),
        })  # fmt: skip
        top += LABEL if one_line or not group.note else 2 * LABEL - 2
        for name in series:
            if (value := group.values.get(name)) is not None:
                high = highest if value.high is None else value.high
                values.append({"series": name, "value": value.value, "low": value.low, "high": high,
                               "y": top + STEP / 2})  # fmt: skip
                top += STEP
        top += GAP
    return labels, values, top


def _cell(value: Value | None, form: Form) -> str:
    if value is None:
        return "none"
    if value.low is None:
        return form.write(value.value)
    if value.high is None:
        return f"{form.write(value.value)} ({form.write(value.low)} or more)"
    return f"{form.write(value.value)} ({form.write(value.low)} to {form.write(value.high)})"


def _words(name: str, groups: Sequence[Group], form: Form) -> str:
    cells = "; ".join(f"{g.label} {_cell(g.values[name], form)}" for g in groups if name in g.values)
    return f"{name}: {cells}"
