"""Charts of a study's rows: quality against cost, and curves over epochs. The legend lists the best row first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from learn_spark.report.plots.curve import line_chart
from learn_spark.report.plots.render import Plot, rows_of, to_svg
from learn_spark.report.plots.style import FONT, TEXT, WIDTH, axis, colour, colours_of, shapes_of
from learn_spark.report.plots.text import NUMBER, number

HEIGHT = 240


@dataclass(frozen=True)
class Point:
    """A row at ``x`` (above 0 on a logarithmic axis) and ``y``."""

    name: str
    x: float
    y: float


def draw_points(key: str, points: Sequence[Point], x_name: str, y_name: str, *, log_x: bool) -> Plot:
    """A mark for each point; the legend lists the highest first. Points that are not finite are left out.

    The axes include 0, except a logarithmic x axis. Raises ValueError if no point is finite.
    """
    finite = sorted((p for p in points if math.isfinite(p.x) and math.isfinite(p.y)), key=lambda p: -p.y)
    title = f"{y_name} against {x_name}"
    if not finite:
        raise ValueError(f"{title}: no finite point of {len(points)}")
    xs = [point.x for point in finite]
    powers = _powers(xs) if log_x else []
    ticks: dict[str, Any] = {"values": powers[:: math.ceil(len(powers) / 5)]} if log_x else {"tickCount": 5}
    x_scale = (
        alt.Scale(type="log", domain=[powers[0], powers[-1]], nice=False)
        if log_x
        else alt.Scale(domain=_from_zero(xs), nice=5)
    )
    x = alt.X(
        "x:Q", scale=x_scale, axis=axis(title=x_name, labelExpr="format(datum.value, ',~g')", labelPadding=10, **ticks)
    )
    y = alt.Y(
        "y:Q",
        scale=alt.Scale(domain=_from_zero([p.y for p in finite]), nice=5),
        axis=axis(title=None, tickCount=5, labelExpr=NUMBER.label),
    )
    names = [point.name for point in finite]
    rows = [{"series": point.name, "x": point.x, "y": point.y} for point in finite]
    marks = (
        alt.Chart(rows_of(rows))
        .mark_point(filled=True, size=110, opacity=1, stroke=colour("paper"), strokeWidth=1, aria=False)
        .encode(x=x, y=y, color=colours_of(names, _legend()), shape=shapes_of(names, _legend()))
    )
    words = "; ".join(f"{p.name}: {p.y:.4f} at {p.x:,.6g}" for p in finite)
    return Plot(
        key=key,
        title=title,
        words=words,
        svg=to_svg(key, title, words, alt.LayerChart(layer=[marks], height=HEIGHT, title=_title(y_name))),
        legend=(),
        head=("row", x_name, y_name),
        rows=tuple((p.name, f"{p.x:,.6g}", f"{p.y:.4f}") for p in finite),
    )


def draw_lines(key: str, lines: Mapping[str, Sequence[float]], x_name: str, y_name: str) -> Plot:
    """A line for each name through its values at 1, 2, ...; the legend lists the line with the highest value first.

    Values that are not finite are left out, and so are lines without a finite value. Raises ValueError if no value is
    finite.
    """
    through = {name: [(place, y) for place, y in enumerate(ys, 1) if math.isfinite(y)] for name, ys in lines.items()}
    best = {name: max(points, key=lambda point: point[1]) for name, points in through.items() if points}
    title = f"{y_name} against {x_name}"
    if not best:
        raise ValueError(f"{title}: no finite point in {len(lines)} lines")
    names = sorted(best, key=lambda name: -best[name][1])
    rows = [{"series": name, "x": float(x), "y": y} for name in names for x, y in through[name]]
    chart = line_chart(rows, names, x_name, marks=True, height=HEIGHT, legend=_legend(), zero=True)
    words = "; ".join(
        f"{name}: best {best[name][1]:.4f} at {best[name][0]} of {through[name][-1][0]}" for name in names
    )
    longest = max(len(ys) for ys in lines.values())
    return Plot(
        key=key,
        title=title,
        words=words,
        svg=to_svg(key, title, words, chart.properties(title=_title(y_name))),
        legend=(),
        head=(x_name, *names),
        rows=tuple(
            (str(place + 1), *(number(lines[n][place]) if place < len(lines[n]) else "none" for n in names))
            for place in range(longest)
        ),
    )


def _powers(values: Sequence[float]) -> list[float]:
    """Powers of ten around all values, at least two."""
    low = math.floor(math.log10(min(values)))
    high = max(low + 1, math.ceil(math.log10(max(values))))
    return [10.0**power for power in range(low, high + 1)]


def _from_zero(values: Sequence[float]) -> list[float]:
    low, high = min(0.0, *values), max(0.0, *values)
    return [low, high] if low < high else [0.0, 1.0]


def _legend() -> alt.Legend:
    return alt.Legend(
        orient="bottom",
        direction="vertical",
        title=None,
        columns=1,
        symbolType="circle",
        symbolSize=90,
        symbolOpacity=1,
        labelFont=FONT,
        labelFontSize=TEXT,
        labelColor=colour("ink"),
        labelLimit=WIDTH - 110,
        rowPadding=4,
    )


def _title(y_name: str) -> alt.TitleParams:
    return alt.TitleParams(
        y_name, anchor="start", font=FONT, fontSize=TEXT, fontWeight=600, color=colour("ink"), limit=WIDTH - 20
    )
