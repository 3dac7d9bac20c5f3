"""Line charts over a numeric axis such as the epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from learn_spark.report.plots.render import Plot, rows_of, to_svg
from learn_spark.report.plots.style import axis, colour, colours_of, shapes_of
from learn_spark.report.plots.text import NUMBER, number

HEIGHT = 150
MOST_MARKS = 40
SMALLEST_SPAN = 1e-200  # Vega divides by a tick's size, which overflows near the smallest floats


def draw_curve(
    key: str, title: str, xs: Sequence[float], lines: Mapping[str, Sequence[float]], *, x_name: str = "epoch"
) -> Plot:
    """Lines through (xs, ys), with a mark on each point if there are at most ``MOST_MARKS`` points.

    A value that is not finite breaks its line. Raises ValueError if no value is finite, or if the number of ys of a
    line differs from the number of xs.
    """
    for name, ys in lines.items():
        if not xs or len(xs) != len(ys):
            raise ValueError(
                f"{title}: {len(xs)} xs and {len(ys)} ys of {name} make no curve; a curve needs one y for each x"
            )
    finite = [y for ys in lines.values() for y in ys if math.isfinite(y)]
    if not finite:
        raise ValueError(f"{title}: no finite value in {len(lines)} lines")
    words = ". ".join(_words(name, xs, ys, x_name) for name, ys in lines.items())
    rows = [
        {"series": name, "x": x, "y": y if math.isfinite(y) else None}
        for name, ys in lines.items()
        for x, y in zip(xs, ys, strict=True)
    ]
    return Plot(
        key=key,
        title=title,
        words=words,
        svg=to_svg(key, title, words, line_chart(rows, list(lines), x_name, marks=len(xs) <= MOST_MARKS)),
        legend=tuple(lines) if len(lines) > 1 else (),
        head=(x_name, *lines),
        rows=tuple((number(x), *(number(ys[i]) for ys in lines.values())) for i, x in enumerate(xs)),
    )


def line_chart(
    rows: Sequence[dict[str, Any]],
    series: Sequence[str],
    x_name: str,
    *,
    marks: bool,
    height: int = HEIGHT,
    legend: alt.Legend | None = None,
    zero: bool = False,
) -> alt.LayerChart:
    """Lines through the rows (series, x, y or None); ``marks`` adds the points, ``zero`` adds 0 to the y axis."""
    xs = [row["x"] for row in rows]
    ys = [row["y"] for row in rows if row["y"] is not None] + ([0.0] if zero else [])
    ticks: dict[str, Any] = {"tickMinStep": 1} if all(x == int(x) for x in xs) else {}
    if len(set(xs)) == 1:
        ticks = {"values": [xs[0]]}
    x = alt.X(
        "x:Q",
        scale=alt.Scale(domain=_domain(xs, 0.5), nice=False, padding=5),
        axis=axis(title=x_name, labelSeparation=18, grid=False, tickCount=6, labelExpr=NUMBER.label, **ticks),
    )
    y = alt.Y(
        "y:Q",
        scale=alt.Scale(domain=_domain(ys, max(0.1 * abs(ys[0]), 1e-9)), nice=4, zero=False),
        axis=axis(title=None, tickCount=4, labelExpr=NUMBER.label),
    )
    base = alt.Chart(rows_of(rows)).encode(x=x, y=y, color=colours_of(list(series), legend))
    layers = [base.mark_line(strokeWidth=2, invalid="break-paths-filter-domains", aria=False)]
    if marks:
        points = alt.Chart(rows_of([row for row in rows if row["y"] is not None])).encode(
            x=x, y=y, color=colours_of(list(series), legend), shape=shapes_of(list(series), legend)
        )
        layers.append(
            points.mark_point(filled=True, size=50, opacity=1, stroke=colour("paper"), strokeWidth=1, aria=False)
        )
    return alt.LayerChart(layer=layers, height=height)


def _domain(values: Sequence[float], room: float) -> list[float]:
    """[lowest, highest], widened by ``room`` on both sides if the span is too small for ticks."""
    low, high = min(values), max(values)
    least = max(1e-9 * max(abs(low), abs(high)), SMALLEST_SPAN)
    return [low, high] if high - low > least else [low - room, high + room]


def _words(name: str, xs: Sequence[float], ys: Sequence[float], x_name: str) -> str:
    low, high = min(y for y in ys if math.isfinite(y)), max(y for y in ys if math.isfinite(y))
    return (
        f"{name}: from {number(ys[0])} at {x_name} {xs[0]:g} to {number(ys[-1])} at {x_name} {xs[-1]:g}; "
        f"lowest {number(low)}, highest {number(high)} at {x_name} {xs[list(ys).index(high)]:g}"
    )
