"""Methods as labelled points and as lines over the epochs, in SVG files without style sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 28, 48
LINE, LETTER, GAP, RADIUS = 14, 7, 8, 4
COLOURS = ("#0969da", "#bf3989", "#1a7f37", "#9a6700", "#8250df", "#57606a")
DASHES = ("none", "6 3", "2 3")


@dataclass(frozen=True)
class Point:
    """A method at ``x`` (above 0 on a logarithmic axis) and ``y``, 0 or more."""

    name: str
    x: float
    y: float


def draw_points(points: Sequence[Point], x_name: str, y_name: str, *, log_x: bool) -> str:
    """The drawing; the upright axis begins at 0, the other one too unless ``log_x``. Points that are not finite are
    left out. ValueError without points.
    """
    points = _finite(points)
    axes = _Axes.around(points, log_x=log_x)
    words = "; ".join(f"{p.name}: {p.y:.4f} at {p.x:,.6g}" for p in points)
    return axes.draw(x_name, y_name, words, _named(points, axes))


def draw_lines(lines: Mapping[str, Sequence[float]], x_name: str, y_name: str) -> str:
    """A line for each name, through its values at 1, 2 and so on, with a point at its highest; names stand beside, the
    highest first. Both axes begin at 0. Values that are not finite are left out. ValueError where there is none.
    """
    through = {name: _finite([Point(name, n, y) for n, y in enumerate(ys, 1)]) for name, ys in lines.items()}
    axes = _Axes.around([point for points in through.values() for point in points], log_x=False)
    best = sorted((max(points, key=lambda p: p.y) for points in through.values() if points), key=lambda p: -p.y)
    parts = []
    for number, point in enumerate(best):
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]
        style = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
        path = "L".join(f"{axes.x_of(p.x):.1f} {axes.y_of(p.y):.1f}" for p in through[point.name])
        x, y = axes.x_of(point.x), axes.y_of(point.y)
        beside, below = WIDTH - RIGHT + GAP, TOP + number * (LINE + 6)
        parts += [
            f'<path d="M{path}" {style}/>',
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}" fill="{colour}"/>',
            f'<path d="M{beside} {below}h20" {style}/>',
            f'<text x="{beside + 28}" y="{below + 4}">{escape(point.name)}</text>',
        ]
    words = "; ".join(f"{p.name}: best {p.y:.4f} at {p.x:g} of {through[p.name][-1].x:g}" for p in best)
    width = max(WIDTH, WIDTH - RIGHT + GAP + 28 + LETTER * max(len(point.name) for point in best))
    return axes.draw(x_name, y_name, words, parts, width=width)


def _finite(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if math.isfinite(point.x) and math.isfinite(point.y)]


def _named(points: Sequence[Point], axes: _Axes) -> list[str]:
    """Points with names that cover neither each other nor a point."""
    spots = [(axes.x_of(point.x), axes.y_of(point.y)) for point in points]
    taken: list[_Box] = []
    parts = []
    for point, (x, y) in sorted(zip(points, spots, strict=True), key=lambda pair: -pair[0].y):
        around = [_Box.around(*spot) for spot in spots if spot != (x, y)]
        left, box = _label(point.name, x, y, [*taken, *around])
        taken.append(box)
        anchor = ' text-anchor="end"' if left else ""
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}" fill="{COLOURS[0]}"/>')
        at = x - GAP if left else x + GAP
        parts.append(f'<text x="{at:.1f}" y="{box.bottom - 4:.1f}"{anchor}>{escape(point.name)}</text>')
    return parts


@dataclass(frozen=True)
class _Axes:
    marks: list[float]
    levels: list[float]
    log_x: bool

    @staticmethod
    def around(points: Sequence[Point], *, log_x: bool) -> _Axes:
        """ValueError without points."""
        if not points:
            raise ValueError("there is no point to draw")
        marks = _powers(points) if log_x else _steps(max(p.x for p in points))
        return _Axes(marks, _steps(max(p.y for p in points)), log_x)

    def x_of(self, value: float) -> float:
        scale = math.log10 if self.log_x else float
        low, high = scale(self.marks[0]), scale(self.marks[-1])
        return LEFT + (scale(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y_of(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / self.levels[-1] * (HEIGHT - TOP - BOTTOM)

    def draw(self, x_name: str, y_name: str, words: str, inner: Sequence[str], *, width: int = WIDTH) -> str:
        """The whole file."""
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" role="img" '
            f'font-family="sans-serif" font-size="13" fill="#24292f"><title>{escape(y_name)} against '
            f"{escape(x_name)}</title><desc>{escape(words)}</desc>",
            f'<rect width="{width}" height="{HEIGHT}" fill="#ffffff"/>',
        ]
        for mark in self.marks:
            x = self.x_of(mark)
            parts.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#d0d7de"/>')
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{mark:,g}</text>')
        for level in self.levels:
            y = self.y_of(level)
            parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#d0d7de"/>')
            parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{level:g}</text>')
        parts.append(
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_name)}</text>'
            f'<text x="{LEFT}" y="{TOP - 10}">{escape(y_name)}</text>'
        )
        return "\n".join([*parts, *inner, "</svg>"]) + "\n"


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    @staticmethod
    def around(x: float, y: float) -> _Box:
        """That of a point."""
        return _Box(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS)

    def meets(self, other: _Box) -> bool:
        """Whether they share any place."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def _label(name: str, x: float, y: float, taken: Sequence[_Box]) -> tuple[bool, _Box]:
    """(whether it stands left of its point, its box): the nearest place that meets none of ``taken``, right first; the
    point's right where there is none.
    """
    wide = LETTER * len(name)
    places = []
    for lines in (0, 1, -1, 2, -2, 3, -3):
        bottom = y + 8 + lines * LINE
        places.append((False, _Box(x + GAP, bottom - LINE, x + GAP + wide, bottom)))
        if x - GAP - wide > LEFT:
            places.append((True, _Box(x - GAP - wide, bottom - LINE, x - GAP, bottom)))
    return next((place for place in places if not any(place[1].meets(box) for box in taken)), places[0])


def _powers(points: Sequence[Point]) -> list[float]:
    """Powers of ten around all points, two at least."""
    low = math.floor(math.log10(min(p.x for p in points)))
    high = max(low + 1, math.ceil(math.log10(max(p.x for p in points))))
    return [10.0**power for power in range(low, high + 1)]


def _steps(most: float) -> list[float]:
    """Round values from 0 to ``most`` or a little more; to 1 where all is 0."""
    if most <= 0:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(most))
    step = next(power * part for part in (0.1, 0.2, 0.5, 1.0, 2.0) if power * part * 6 >= most)
    return [round(step * number, 12) for number in range(math.ceil(most / step - 1e-9) + 1)]
