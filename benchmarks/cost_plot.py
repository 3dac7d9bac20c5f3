"""Quality against cost as an SVG file that needs no style sheet: one labelled point a method, seconds on a log axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 130, 24, 48


@dataclass(frozen=True)
class Point:
    """A method's ``quality`` and its ``seconds`` of training, above 0."""

    name: str
    seconds: float
    quality: float


def draw_costs(points: Sequence[Point], quality: str) -> str:
    """The drawing; ``quality`` names the upright axis, which begins at 0. ValueError without points."""
    if not points:
        raise ValueError("there is no point to draw")
    low = math.floor(math.log10(min(p.seconds for p in points)))
    high = max(low + 1, math.ceil(math.log10(max(p.seconds for p in points))))
    top = max(p.quality for p in points) * 1.15 or 1.0

    def x_of(seconds: float) -> float:
        return LEFT + (math.log10(seconds) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y_of(value: float) -> float:
        return HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)

    words = "; ".join(f"{p.name}: {p.quality:.4f} after {p.seconds:,.0f} s" for p in points)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="sans-serif" '
        f'font-size="13" fill="#24292f"><title>{escape(quality)} against seconds of training</title>'
        f"<desc>{escape(words)}</desc>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for power in range(low, high + 1):
        x = x_of(10.0**power)
        parts.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{10.0**power:,g}</text>')
    for step in range(5):
        value = top * step / 4
        y = y_of(value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.3f}</text>')
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">seconds of training</text>'
        f'<text x="{LEFT}" y="{TOP - 8}">{escape(quality)}</text>'
    )
    for point in points:
        x, y = x_of(point.seconds), y_of(point.quality)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="#0969da"/>')
        parts.append(f'<text x="{x + 9:.1f}" y="{y + 4:.1f}">{escape(point.name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
