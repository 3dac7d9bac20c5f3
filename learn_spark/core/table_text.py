"""Text tables whose figures and ids are whole at any width: prose wraps, and too wide a row becomes a block."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

GAP = 2  # blanks between two columns
LEAST_PROSE = 16  # characters: a column of prose is not made narrower
_FIGURE = re.compile(r"[-+<>=]{0,2} ?\d[\d.,]*(e[-+]?\d+)?( ?%| \w{1,6})?", re.IGNORECASE)

Cell = str | int | float | datetime | None


@dataclass(frozen=True)
class Column:
    """A column: its name, and the format of its numbers or times, such as ``.4f`` or ``%Y-%m-%d``."""

    name: str
    form: str = ""

    def text(self, cell: Cell) -> str:
        """A cell as text: nothing for None, whole numbers with separators of thousands."""
        if cell is None:
            return ""
        if isinstance(cell, str):
            return cell
        if isinstance(cell, bool):
            return "yes" if cell else "no"
        if isinstance(cell, datetime):
            return format(cell, self.form or "%Y-%m-%d %H:%M")
        return format(cell, self.form or (",d" if isinstance(cell, int) else "g"))


def lay_out(names: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """The lines of a table in ``width`` characters (None: as wide as its cells).

    Columns of figures are aligned right. Where the table is wider than ``width``, columns of prose wrap at blanks;
    where that is not enough, every row is a block with a line for each cell. No word is cut.
    """
    cells = [[" ".join(cell.split()) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    figures = [_is_of_figures(column[1:]) for column in zip(names, *cells, strict=True)]
    if width is not None and _total(widths) > width:
        widths = _narrowed(names, cells, widths, figures, width)
        if _total(widths) > width:
            return _blocks(names, cells, width)
    lines = [_line([[name] for name in names], widths, figures)]
    for row in cells:
        lines.append(_line([_wrapped(cell, size) for cell, size in zip(row, widths, strict=True)], widths, figures))
    return [line for group in lines for line in group]


def wrapped(text: str, width: int | None) -> list[str]:
    """The lines of a text in ``width`` characters (None: as it is), broken at blanks, the later ones indented.

    No word is cut, and a line with a command of learn-spark stays whole, so that it can be copied from a terminal.
    """
    if width is None or len(text) <= width or "learn-spark " in text:
        return [text]
    indent = text[: len(text) - len(text.lstrip())]
    if len(indent) + LEAST_PROSE > width:
        return [text]
    return textwrap.wrap(
        text.strip(),
        width,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _is_of_figures(cells: Sequence[str]) -> bool:
    given = [cell for cell in cells if cell]
    return bool(given) and all(_FIGURE.fullmatch(cell) for cell in given)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _narrowed(
    names: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int], figures: Sequence[bool], width: int
) -> list[int]:
    """The widths with columns of prose made narrower, the widest first, never below their longest word."""
    narrowed = list(widths)
    least = []
    for number, name in enumerate(names):
        words = [word for row in rows for word in row[number].split()]
        prose = not figures[number] and any(" " in row[number] for row in rows) and widths[number] > LEAST_PROSE
        least.append(max([LEAST_PROSE, len(name), *map(len, words)]) if prose else widths[number])
    while (over := _total(narrowed) - width) > 0:
        spare = [narrowed[number] - least[number] for number in range(len(names))]
        widest = max(range(len(names)), key=lambda number: (spare[number] > 0, narrowed[number]))
        if spare[widest] <= 0:
            break
        narrowed[widest] -= min(over, spare[widest], max(1, narrowed[widest] // 4))
    return narrowed


def _wrapped(text: str, width: int) -> list[str]:
    if len(text) <= width:
        return [text]
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _line(cells: Sequence[Sequence[str]], widths: Sequence[int], figures: Sequence[bool]) -> list[str]:
    """The lines of one row, whose cells have several lines each."""
    lines = []
    for number in range(max(map(len, cells))):
        parts = [cell[number] if number < len(cell) else "" for cell in cells]
        aligned = [
            part.rjust(size) if right else part.ljust(size)
            for part, size, right in zip(parts, widths, figures, strict=True)
        ]
        lines.append((" " * GAP).join(aligned).rstrip())
    return lines


def _blocks(names: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    label = max(map(len, names))
    lines: list[str] = []
    for row in rows:
        lines += [""] if lines else []
        for number, (name, cell) in enumerate(zip(names, row, strict=True)):
            if not cell:
                continue
            # The first line of a block stands out by its place.
            indent = "" if number == 0 else "  "
            first, *more = _wrapped(cell, max(LEAST_PROSE, width - label - GAP - 2))
            lines.append(f"{indent}{name.ljust(label + 2 - len(indent))}{' ' * GAP}{first}")
            lines += [" " * (label + 2 + GAP) + line for line in more]
    return lines
