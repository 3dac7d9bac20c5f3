"""Lines over a number such as the epoch, drawn as SVG: a page of them needs no network and no script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from learn_spark.report.svg import WIDTH, Plot, drawing, element, mark, number, ticks

HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 200, 52, 12, 12, 38
MOST_MARKS = 40


def draw_curve(
    key: str, title: str, xs: Sequence[float], lines: Mapping[str, Sequence[float]], *, x_name: str = "epoch"
) -> Plot:
    """Lines through (xs, ys), a mark on each point while there are few; values that are not finite break a line.

    Raises ValueError where there is no finite point, or a line has not as many ys as there are xs.
    """
    for name, ys in lines.items():
        if not xs or len(xs) != len(ys):
            raise ValueError(f"{title}: {len(xs)} xs and {len(ys)} ys of {name} do not make a curve")
    finite = [y for ys in lines.values() for y in ys if math.isfinite(y)]
    if not finite:
        raise ValueError(f"{title}: no finite value in {len(lines)} lines")
    y_ticks = ticks(min(finite), max(finite))
    x_ticks = [x for x in ticks(xs[0], xs[-1], 6) if xs[0] <= x <= xs[-1] and x == int(x)] if len(xs) > 1 else [xs[0]]
    floor, reach = HEIGHT - BOTTOM, (xs[-1] - xs[0]) or 1.0

    def x_of(x: float) -> float:
        return LEFT + 6 + (x - xs[0]) / reach * (WIDTH - LEFT - RIGHT - 6)

    def y_of(y: float) -> float:
        return floor - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (floor - TOP)

    parts = [element("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=y_of(y), y2=y_of(y)) for y in y_ticks]
    parts += [element("text", number(y), x=LEFT - 6, y=y_of(y) + 4, text_anchor="end") for y in y_ticks]
    parts += [element("text", number(x), x=x_of(x), y=floor + 16, text_anchor="middle") for x in x_ticks]
    parts.append(element("text", x_name, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 5, text_anchor="middle"))
    for kind, ys in enumerate(lines.values()):
        points = [(x_of(x), y_of(y)) if math.isfinite(y) else None for x, y in zip(xs, ys, strict=True)]
        parts.append(element("path", class_=f"line s{kind}", d=_path(points)))
        if len(xs) <= MOST_MARKS:
            parts += [mark(kind, *point, size=3) for point in points if point]
    words = ". ".join(_words(name, xs, ys, x_name) for name, ys in lines.items())
    return Plot(
        key=key,
        title=title,
        words=words,
        svg=drawing(key, title, words, HEIGHT, parts),
        legend=tuple(lines) if len(lines) > 1 else (),
        head=(x_name, *lines),
        rows=tuple((number(x), *(number(ys[i]) for ys in lines.values())) for i, x in enumerate(xs)),
    )


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    steps, pen = [], "M"
    for point in points:
        if point is None:
            pen = "M"
            continue
        steps.append(f"{pen}{point[0]:.1f},{point[1]:.1f}")
        pen = "L"
    return " ".join(steps)


def _words(name: str, xs: Sequence[float], ys: Sequence[float], x_name: str) -> str:
    low, high = min(y for y in ys if math.isfinite(y)), max(y for y in ys if math.isfinite(y))
    return (
        f"{name}: from {number(ys[0])} at {x_name} {xs[0]:g} to {number(ys[-1])} at {x_name} {xs[-1]:g}; "
        f"lowest {number(low)}, highest {number(high)} at {x_name} {xs[list(ys).index(high)]:g}"
    )
