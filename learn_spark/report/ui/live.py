"""What works in a workspace now: stages, progress and the newest printed lines. Nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from learn_spark.core.console_log import CONSOLE_LOG, LogLine, newest_lines
from learn_spark.core.storage.holders import Holder, holders
from learn_spark.core.tables.runs import Run, all_runs
from learn_spark.core.tables.workspace import Workspace
from learn_spark.report.templates import environment

LINES, RUNS = 40, 5


@dataclass(frozen=True)
class Work:
    """A command that works on the workspace, and its progress, if it counts: ``done`` of ``total``."""

    holder: Holder
    progress: LogLine | None


@dataclass(frozen=True)
class Live:
    """``lines``: printed by what works now, else by the last command; ``runs``: the newest ones, newest first."""

    work: tuple[Work, ...]
    lines: tuple[LogLine, ...]
    runs: tuple[Run, ...]

    @property
    def sentence(self) -> str:
        """What works now, in one sentence that changes with the stage only."""
        if not self.work:
            return "Nothing works on this workspace now."
        return " ".join(
            f"{_upper(one.holder.at or one.holder.job)} (the command began {one.holder.since})." for one in self.work
        )


def live(workspace: Workspace) -> Live:
    """What works now. At an address only lines and runs are known."""
    found = holders(workspace.place.local / "locks" / "workspace") if workspace.place.is_local else []
    lines = newest_lines(workspace.scratch / "logs" / CONSOLE_LOG, LINES)
    work = tuple(Work(one, _progress(lines, one.process)) for one in found)
    return Live(work, tuple(_of_now(lines, found)), tuple(reversed(all_runs(workspace)[-RUNS:])))


def as_html(now: Live) -> str:
    """The figures and lines of ``now`` as HTML, escaped."""
    return environment().get_template("ui/live.html.jinja").render(now=now)


def _progress(lines: Sequence[LogLine], process: int) -> LogLine | None:
    """The newest count of a process, unless it is complete or something else was printed since."""
    own = [line for line in lines if line.process == process]
    if not own or own[-1].total is None or own[-1].done == own[-1].total:
        return None
    return own[-1]


def _of_now(lines: Sequence[LogLine], found: Sequence[Holder]) -> Sequence[LogLine]:
    processes = {one.process for one in found} or {line.process for line in lines[-1:]}
    return [line for line in lines if line.process in processes]


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
