"""Console output of jobs: lines, progress bars with rate and time left, and tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

SECONDS_BETWEEN_LINES = 10.0
LONGEST_ROW = 10_000  # characters: outside a terminal no cell of a table is cut off


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
            return
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES and self.done < self._total:
            self._last = now
            rate = self.done / max(now - self._start, 1e-9)
            left = (self._total - self.done) / max(rate, 1e-9)
            self._console.say(
                f"{self._label}: {self.done:,} of {self._total:,} {self._unit}, {rate:,.0f}/s, {left:,.0f} s left"
                + (f", {note}" if note else "")
            )


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


class Reporter:
    """Prints to the terminal; to a file or a pipe it prints plain lines of 120 characters."""

    def __init__(self, *, quiet: bool = False) -> None:
        width = None if sys.stdout.isatty() else LONGEST_ROW
        self.console = Console(highlight=False, width=width, soft_wrap=not sys.stdout.isatty(), quiet=quiet)

    def heading(self, text: str) -> None:
        """Print a heading in bold."""
        self.console.print(Text(text, style="bold"))

    def say(self, text: str) -> None:
        """Print one line, indented below its heading."""
        self.console.print(Text(f"  {text}"))

    def line(self, text: str = "") -> None:
        """Print one line without indentation."""
        self.console.print(Text(text))

    @contextmanager
    def bar(self, label: str, total: int, unit: str) -> Iterator[Bar]:
        """A progress bar of ``total`` ``unit`` (such as "texts")."""
        bar = Bar(self, label, total, unit)
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
        with Progress(*columns, console=self.console, transient=True) as progress:
            progress.add_task(label, total=total, note="")
            bar._rich = progress
            yield bar

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; the first column is aligned left, the others right."""
        table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2))
        for number, name in enumerate(columns):
            table.add_column(name, justify="right" if number else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        self.console.print()
        self.console.print(table)
