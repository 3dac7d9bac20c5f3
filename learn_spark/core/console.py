"""Console output of jobs: lines, progress bars with rate and time left, and tables."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from learn_spark.core.console_log import ConsoleLog
from learn_spark.core.table_text import Cell, Column, lay_out, wrapped
from learn_spark.core.ticker import COMMAND, SECONDS_BETWEEN_LINES
from learn_spark.core.visible import visible, visible_json


class Bar:
    """A progress count. On a terminal it is drawn by rich, else printed as a line every ``SECONDS_BETWEEN_LINES``."""

    def __init__(self, console: Reporter, label: str, total: int, unit: str) -> None:
        self._console, self._label, self._total, self._unit = console, label, total, unit
        self._start = self._last = time.monotonic()
        self.done = 0
        self._rich: Progress | None = None

    def advance(self, count: int, note: str = "") -> None:
        """Add ``count`` to the progress; ``note`` is shown after the rate."""
        self.done += count
        if self._rich is not None:
            self._rich.update(self._rich.task_ids[0], completed=self.done, note=note)
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_LINES or self.done >= self._total:
            return
        self._last = now
        rate = self.done / max(now - self._start, 1e-9)
        left = (self._total - self.done) / max(rate, 1e-9)
        text = f"{self._label}: {self.done:,} of {self._total:,} {self._unit}, {rate:,.0f}/s, {left:,.0f} s left"
        self._console.progress(
            text + (f", {note}" if note else ""), self.done, self._total, drawn=self._rich is not None
        )


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


class Reporter:
    """Prints to the terminal, or collects what it is given as one JSON value.

    Lines are never cut: on a terminal prose wraps at blanks, a file or a pipe gets lines as they are.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False, width: int | None = None) -> None:
        """``as_json``: print nothing; ``print_json`` prints tables and lines. ``width``: of tables, in characters;
        default: the terminal's, else as wide as the cells.
        """
        self.console = Console(highlight=False, soft_wrap=True, quiet=quiet or as_json)
        self._as_json = as_json
        # Not rich's word for it: FORCE_COLOR makes any output a terminal for it.
        terminal = self.console.is_terminal and sys.stdout.isatty()
        self._width = width or (self.console.width if terminal else None)
        self._answer: object = _NOTHING
        self._values: dict[str, object] = {}
        self._notes: list[str] = []
        self._log: ConsoleLog | None = None
        self.ticker = COMMAND

    def at(self, step: str) -> None:
        """Note the present step, which the ticker names when the step takes long; nothing is printed."""
        self.ticker.at(step)

    @contextmanager
    def kept_in(self, log: ConsoleLog) -> Iterator[None]:
        """Inside the ``with`` block, append what is printed to ``log`` too, and progress that is only drawn."""
        self._log = log
        try:
            yield
        finally:
            self._log = None

    def progress(self, text: str, done: int, total: int, *, drawn: bool) -> None:
        """Say how far a count is; ``drawn``: a bar shows it already."""
        if self._log is not None:
            self._log.write(text, done, total)
        if not drawn:
            self._print(f"  {text}", log=False)

    def _print(self, text: str = "", style: str = "", *, log: bool = True) -> None:
        if log and self._log is not None and text.strip():
            self._log.write(text)
        for line in wrapped(visible(text), self._width):
            self.console.print(Text(line, style=style))
        if not self.console.quiet:
            self.ticker.printed()

    def heading(self, text: str) -> None:
        """Print a heading in bold."""
        self._print(text, "bold")
        self.ticker.at_stage(text.partition(":")[0])  # its summary is printed once

    def say(self, text: str, *, kept: bool = True) -> None:
        """Print one line of progress, indented below its heading.

        ``kept``: append it to the log of ``kept_in``, too. A text that may quote rows is not kept, because rows of
        users would outlive their erasure there.
        """
        self._print(f"  {text}", log=kept)

    def line(self, text: str = "") -> None:
        """Print one line without indentation: a result, which JSON has among its ``notes``."""
        if text:
            self._notes.append(text)
        self._print(text)

    @contextmanager
    def bar(self, label: str, total: int, unit: str) -> Iterator[Bar]:
        """A progress bar of ``total`` ``unit`` (such as "texts")."""
        bar = Bar(self, label, total, unit)
        self.at(label)
        if not self.console.is_terminal or self.console.quiet:
            yield bar
            return
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with self.ticker.paused(), Progress(*columns, console=self.console, transient=True) as progress:
            progress.add_task(label, total=total, note="")
            bar._rich = progress
            yield bar

    def table(
        self, title: str, columns: Sequence[str | Column], rows: Sequence[Sequence[Cell]], *, name: str = ""
    ) -> None:
        """Print a table. Cells are texts, numbers or times; ``name``: its key in JSON, default: the title."""
        described = [Column(one) if isinstance(one, str) else one for one in columns]
        names = [column.name for column in described]
        self._values[name or title] = [dict(zip(names, row, strict=True)) for row in rows]
        texts = [[column.text(cell) for column, cell in zip(described, row, strict=True)] for row in rows]
        self._print()
        self._print(title, "bold")
        for number, text in enumerate(lay_out(names, texts, self._width)):
            self._print(text, "bold" if number == 0 else "")

    def answer(self, value: object) -> None:
        """In JSON, print this value, and neither tables nor notes."""
        self._answer = value

    def record(self, name: str, value: object) -> None:
        """Add a value to the JSON object; nothing is printed."""
        self._values[name] = value

    def print_json(self) -> None:
        """If the console is for JSON: print the answer, else tables and values by name, and lines as ``notes``."""
        if self._as_json:
            value = {**self._values, "notes": self._notes} if self._answer is _NOTHING else self._answer
            sys.stdout.write(strict_json(value) + "\n")


_NOTHING = object()


def strict_json(value: object) -> str:
    """A value as JSON of any reader: null for NaN and infinity, ISO texts for times, numpy's numbers as numbers, and
    the texts of what JSON has no type for. Characters that a terminal obeys are escaped.
    """
    return visible_json(json.dumps(_plain(value), indent=1, ensure_ascii=False, allow_nan=False))


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "tolist"):  # numpy's numbers and arrays
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)
