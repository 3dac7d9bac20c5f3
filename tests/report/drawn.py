"""A rendered chart as numbers: where its marks, bars, lines, grid and texts lie."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from learn_spark.report.plots.render import XMLNS, Plot

SVG = "{http://www.w3.org/2000/svg}"
Place = tuple[float, float]


@dataclass(frozen=True)
class Mark:
    """A symbol: its middle, its outline and its colour."""

    x: float
    y: float
    outline: str
    fill: str


@dataclass(frozen=True)
class Text:
    """A text, where it is anchored."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Drawn:
    """A chart in the coordinates of its viewBox. ``lines`` are broken into pieces; ``grid`` has the x (y) of upright
    (level) lines; ``axis`` has the labels of ticks.
    """

    marks: list[Mark]
    bars: list[tuple[Place, Place]]
    lines: list[list[list[Place]]]
    grid: list[Place]
    axis: list[Text]
    texts: list[Text]

    def of(self, place: int) -> list[Mark]:
        """The marks of the series number ``place``, from left to right and top to bottom as drawn."""
        return [mark for mark in self.marks if f"--s{place}," in mark.fill]


def drawn(plot: Plot) -> Drawn:
    """The chart read back from its SVG."""
    root = ElementTree.fromstring(str(plot.svg).replace("<svg ", f"<svg {XMLNS} ", 1))
    found = Drawn([], [], [], [], [], [])
    for parent, one, (x, y) in _walk(root, (0.0, 0.0), ""):
        tag = one.tag.removeprefix(SVG)
        if tag == "text":
            text = Text(x, y, "".join(one.itertext()))
            found.texts.append(text)
            if "role-axis-label" in parent:
                found.axis.append(text)
        elif tag == "path" and "mark-symbol role-mark" in parent:
            found.marks.append(Mark(x, y, one.get("d", ""), one.get("fill", "")))
        elif tag == "path" and "mark-line" in parent:
            pieces = [piece for piece in one.get("d", "").split("M") if piece]
            found.lines.append([
                [(x + float(a), y + float(b)) for a, b in re.findall(r"(-?[\d.e-]+),(-?[\d.e-]+)", piece)]
                for piece in pieces
            ])  # fmt: skip
        elif tag == "line" and "mark-rule role-mark" in parent:
            found.bars.append(((x, y), (x + float(one.get("x2", 0)), y + float(one.get("y2", 0)))))
        elif tag == "line" and "role-axis-grid" in parent:
            found.grid.append((x, y))
    return found


def _walk(one: ElementTree.Element, origin: Place, parent: str) -> Iterator[tuple[str, ElementTree.Element, Place]]:
    """(class of the nearest named ancestor, element, its origin) of all elements below."""
    x, y = origin
    for a, b in re.findall(r"translate\(([^,]+),([^)]+)\)", one.get("transform", "")):
        x, y = x + float(a), y + float(b)
    yield parent, one, (x, y)
    for child in one:
        yield from _walk(child, (x, y), one.get("class") or parent)
