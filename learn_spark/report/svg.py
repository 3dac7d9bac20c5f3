"""What all plots are made of: escaped SVG elements, round ticks, marks that differ in shape as well as in colour."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

# Drawn at the width of a phone, so that text is never scaled below its size.
WIDTH = 360
KINDS = 6


@dataclass(frozen=True)
class Plot:
    """A drawing, what it says in words, and the figures it was drawn from.

    ``legend`` names the series in the order of their marks; ``head`` and ``rows`` are the table behind the drawing.
    """

    key: str
    title: str
    words: str
    svg: Markup
    legend: tuple[str, ...]
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def element(name: str, content: str = "", **attributes: str | float) -> Markup:
    """``<name ...>content</name>``, all escaped but Markup; ``class_`` loses its _, ``text_anchor`` gets a dash."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"' for key, value in attributes.items()
    )
    return Markup(f"<{name}{written}>{escape(content)}</{name}>")


def drawing(key: str, title: str, words: str, height: float, parts: Sequence[Markup]) -> Markup:
    """The whole ``<svg>``: an image to a screen reader, named by its title and described in words."""
    head = [element("title", title, id=f"{key}-title"), element("desc", words, id=f"{key}-words")]
    return element(
        "svg",
        Markup("").join([*head, *parts]),
        viewBox=f"0 0 {WIDTH} {_plain(height)}",
        role="img",
        aria_labelledby=f"{key}-title",
        aria_describedby=f"{key}-words",
    )


def mark(kind: int, x: float, y: float, size: float = 4.5) -> Markup:
    """The mark of series number ``kind`` at a place: circle, square, triangle, diamond, triangle upside down, bar."""
    kind %= KINDS
    style = f"mark s{kind}"
    if kind == 0:
        return element("circle", class_=style, cx=x, cy=y, r=size)
    shapes = {
        1: ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        2: ((0.0, -1.1), (1.1, 0.9), (-1.1, 0.9)),
        3: ((0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)),
        4: ((-1.1, -0.9), (1.1, -0.9), (0.0, 1.1)),
        5: ((-0.45, -1.2), (0.45, -1.2), (0.45, 1.2), (-0.45, 1.2)),
    }
    points = " ".join(f"{_plain(x + dx * size)},{_plain(y + dy * size)}" for dx, dy in shapes[kind])
    return element("polygon", class_=style, points=points)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About ``count`` round numbers (1, 2 or 5 times a power of ten apart) from at most ``low`` to at least ``high``.

    Where the two are as good as one number, it lies between the ticks.

    Raises ValueError where ``low`` is above ``high`` or one of them is not finite.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"no ticks from {low} to {high}")
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-100):
        room = 0.1 * abs(low) if abs(low) > 1e-100 else 1.0
        low, high = low - room, high + room
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{n * step:.12g}") for n in range(first, last + 1)]


def number(value: float) -> str:
    """Four digits that count."""
    return f"{value:.4g}"


def percent(value: float) -> str:
    """A share as a percentage, small ones with a digit more."""
    return f"{100 * value:.0f} %" if value == 0 or value >= 0.0995 else f"{100 * value:.1f} %"


def slug(name: str) -> str:
    """``name`` as part of an HTML id."""
    return re.sub(r"\W+", "-", name).lower()


def _plain(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
