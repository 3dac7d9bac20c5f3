"""A line drawn as SVG, for a page that needs no network and no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 420, 180, 52, 26, 10


@dataclass(frozen=True)
class Curve:
    """An SVG path, its ticks, and what it says in words."""

    title: str
    path: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    words: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    floor: int = HEIGHT - BOTTOM


def draw(title: str, xs: Sequence[float], ys: Sequence[float]) -> Curve:
    """A curve through (xs, ys); ValueError where there are no points or as many xs as ys."""
    if not xs or len(xs) != len(ys):
        raise ValueError(f"{title}: {len(xs)} xs and {len(ys)} ys do not make a curve")
    low, high = min(ys), max(ys)
    span = (high - low) or 1.0
    reach = (xs[-1] - xs[0]) or 1.0

    def x_of(x: float) -> float:
        return LEFT + (x - xs[0]) / reach * (WIDTH - LEFT - 10)

    def y_of(y: float) -> float:
        return HEIGHT - BOTTOM - (y - low) / span * (HEIGHT - BOTTOM - TOP)

    steps = " ".join(
        f"{'L' if i else 'M'}{x_of(x):.1f},{y_of(y):.1f}" for i, (x, y) in enumerate(zip(xs, ys, strict=True))
    )
    words = (
        f"{title}: from {ys[0]:.4g} at epoch {xs[0]:g} to {ys[-1]:.4g} at epoch {xs[-1]:g}; "
        f"lowest {low:.4g}, highest {high:.4g}"
    )
    return Curve(
        title=title,
        path=steps,
        x_ticks=[(x_of(x), f"{x:g}") for x in dict.fromkeys((xs[0], xs[len(xs) // 2], xs[-1]))],
        y_ticks=[(y_of(y), f"{y:.4g}") for y in dict.fromkeys((low, high))],
        words=words,
    )
