"""Values side by side with their intervals, a group of rows for each slice, drawn as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from learn_spark.report.svg import WIDTH, Plot, drawing, element, mark, number, ticks

LEFT, RIGHT, TOP, AXIS = 16, 22, 4, 40
LABEL, STEP, GAP = 18, 13, 10
HALF_LETTER = 4.0  # of a tick's text; "+" and "%" are wider than figures


@dataclass(frozen=True)
class Value:
    """A value and its interval; None for both where there is none."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Group:
    """A slice: its name, how much it holds, and the value of each series that has one."""

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
    write: Callable[[float], str] = number,
) -> Plot:
    """One row a series in every group, from 0 on: a mark at the value, a bar over the interval.

    Raises ValueError where there is nothing to draw, or a value or an interval's end is not finite.
    """
    drawn = [value for group in groups for name, value in group.values.items() if name in series]
    if not drawn:
        raise ValueError(f"{title}: {len(groups)} groups hold no value of {', '.join(series) or 'no series'}")
    bounds = [bound for v in drawn for bound in (v.value, v.low, v.high) if bound is not None]
    if not all(map(math.isfinite, bounds)):
        raise ValueError(
            f"{title}: {sum(not math.isfinite(b) for b in bounds)} of {len(bounds)} figures are not finite"
        )
    marks = ticks(min(0.0, *bounds), max(0.0, *bounds), 5)

    def x_of(x: float) -> float:
        return LEFT + (x - marks[0]) / (marks[-1] - marks[0]) * (WIDTH - LEFT - RIGHT)

    floor = TOP + sum(LABEL + STEP * sum(name in group.values for name in series) + GAP for group in groups)
    parts = [element("line", class_="grid", x1=x_of(x), x2=x_of(x), y1=TOP, y2=floor) for x in marks]
    top = float(TOP)
    for group in groups:
        parts.append(
            element(
                "text",
                Markup("").join([element("tspan", group.label, class_="label"), element("tspan", group.note, dx="8")]),
                x=LEFT,
                y=top + 12,
            )
        )
        top += LABEL
        for kind, name in enumerate(series):
            if name in group.values:
                parts += _row(kind, group.values[name], top + STEP / 2, x_of)
                top += STEP
        top += GAP
    parts += [
        element("text", write(x), x=_inside(x_of(x), write(x)), y=floor + 16, text_anchor="middle") for x in marks
    ]
    parts.append(element("text", x_name, x=WIDTH / 2, y=floor + 33, text_anchor="middle"))
    words = ". ".join(_words(name, groups, write) for name in series if any(name in g.values for g in groups))
    return Plot(
        key=key,
        title=title,
        words=words,
        svg=drawing(key, title, words, floor + AXIS, parts),
        legend=tuple(series) if len(series) > 1 else (),
        head=(group_name, "holds", *series),
        rows=tuple((g.label, g.note, *(_cell(g.values.get(name), write) for name in series)) for g in groups),
    )


def _inside(middle: float, text: str) -> float:
    """``middle``, or as near to it as the whole text can be drawn."""
    half = HALF_LETTER * len(text)
    return min(max(middle, half), WIDTH - half)


def _row(kind: int, value: Value, y: float, x_of: Callable[[float], float]) -> list[Markup]:
    dot = mark(kind, x_of(value.value), y)
    if value.low is None or value.high is None:
        return [dot]
    bar = element("line", class_=f"bar s{kind % 6}", x1=x_of(value.low), x2=x_of(value.high), y1=y, y2=y)
    return [bar, dot]


def _cell(value: Value | None, write: Callable[[float], str]) -> str:
    if value is None:
        return "none"
    if value.low is None or value.high is None:
        return write(value.value)
    return f"{write(value.value)} ({write(value.low)} to {write(value.high)})"


def _words(name: str, groups: Sequence[Group], write: Callable[[float], str]) -> str:
    told = "; ".join(f"{g.label} {_cell(g.values[name], write)}" for g in groups if name in g.values)
    return f"{name}: {told}"
