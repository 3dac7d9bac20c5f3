"""Methods as labelled points, in an SVG file without style sheet: quality against cost, or against another quality."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 28, 48
LINE, LETTER, GAP, RADIUS = 14, 7, 8, 4


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
    points = [point for point in points if math.isfinite(point.x) and math.isfinite(point.y)]
    if not points:
        raise ValueError("there is no point to draw")
    marks = _powers(points) if log_x else _steps(max(p.x for p in points))
    scale = math.log10 if log_x else float
    low, high = scale(marks[0]), scale(marks[-1])
    levels = _steps(max(p.y for p in points))

    def x_of(value: float) -> float:
        return LEFT + (scale(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y_of(value: float) -> float:
        return HEIGHT - BOTTOM - value / levels[-1] * (HEIGHT - TOP - BOTTOM)

    words = "; ".join(f"{p.name}: {p.y:.4f} at {p.x:,.6g}" for p in points)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="sans-serif" '
        f'font-size="13" fill="#24292f"><title>{escape(y_name)} against {escape(x_name)}</title>'
        f"<desc>{escape(words)}</desc>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for mark in marks:
        x = x_of(mark)
        parts.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{mark:,g}</text>')
    for level in levels:
        y = y_of(level)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{level:g}</text>')
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_name)}</text>'
        f'<text x="{LEFT}" y="{TOP - 10}">{escape(y_name)}</text>'
    )
    spots = [(x_of(point.x), y_of(point.y)) for point in points]
    taken: list[_Box] = []
    for point, (x, y) in sorted(zip(points, spots, strict=True), key=lambda pair: -pair[0].y):
        around = [_Box.around(*spot) for spot in spots if spot != (x, y)]
        left, box = _label(point.name, x, y, [*taken, *around])
        taken.append(box)
        anchor = ' text-anchor="end"' if left else ""
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}" fill="#0969da"/>')
        at = x - GAP if left else x + GAP
        parts.append(f'<text x="{at:.1f}" y="{box.bottom - 4:.1f}"{anchor}>{escape(point.name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


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
