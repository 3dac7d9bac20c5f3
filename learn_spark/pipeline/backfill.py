"""Releases for days gone by, each knowing only what was before its day: training data of a time without releases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta

from learn_spark.core.console import Reporter
from learn_spark.core.errors import SettingsError
from learn_spark.core.settings import Settings
from learn_spark.core.settings.platform import QualitySettings, RuleSettings
from learn_spark.core.stages.context import SparkHolder
from learn_spark.core.tables.runs import last_done
from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.runner import run_stages

FIRST_DAY, LATER_DAY = ("histories", "train", "publish"), ("histories", "publish")


def days_between(first: str, last: str, every: int) -> list[str]:
    """ISO dates from ``first`` to ``last``, both included, ``every`` so many days; SettingsError where that is none."""
    try:
        start, end = date.fromisoformat(first), date.fromisoformat(last)
    except ValueError as error:
        raise SettingsError(f"backfill needs days such as 2024-01-31: {error}") from None
    if end < start:
        raise SettingsError(f"backfill from {first} to {last}: the end is before the beginning")
    return [str(start + timedelta(days=n)) for n in range(0, (end - start).days + 1, every)]


def backfill(
    load: Callable[[Sequence[str]], Settings],
    days: Sequence[str],
    *,
    console: Reporter,
    dry_run: bool = False,
    verbose: bool = False,
) -> None:
    """Publish one backfilled release a day, as of its beginning; ``load`` gives the settings with more overrides.

    The tower is trained once, as of the first day, so that it knows no later one; each day's release writes what
    changed since the day before. At the end, and where a day fails, the histories are what the settings say again.
    What consumers read as the latest stays what it was.
    """
    own = load(())
    workspace = Workspace.open(own.workspace)
    if dry_run:
        _show(workspace, days, console)
        return
    holder = SparkHolder(own, verbose=verbose)
    # One session for all days.
    holder.get(workspace)
    try:
        for number, day in enumerate(days):
            console.heading(f"{day} ({number + 1} of {len(days)})")
            settings = _of_the_past(load([f"histories.as_of={day}", "release.backfill=true"]))
            run_stages(LATER_DAY if number else FIRST_DAY, settings, console=console, verbose=verbose)
    finally:
        try:
            run_stages(["histories"], own, console=console, verbose=verbose)
        finally:
            holder.stop()


def _of_the_past(settings: Settings) -> Settings:
    """The same, but that the histories may have fewer users than the version before: that one was of a later time."""
    change = RuleSettings(least=None, severity="warn")
    rules = {**settings.quality.rules, "user_histories.volume": change}
    return settings.model_copy(update={"quality": QualitySettings(rules=rules)})


def _show(workspace: Workspace, days: Sequence[str], console: Reporter) -> None:
    seconds = {}
    for job in FIRST_DAY:
        run = last_done(workspace, job)
        seconds[job] = None if run is None else run.seconds
    for number, day in enumerate(days):
        console.line(f"{day}: {', '.join(LATER_DAY if number else FIRST_DAY)}, one backfilled release as of {day}")
    console.line("then histories as the settings say")
    if None in seconds.values():
        never = ", ".join(job for job, took in seconds.items() if took is None)
        console.line(f"time unknown: {never} never ran here")
    else:
        a_day = sum(seconds[job] or 0 for job in LATER_DAY)
        total = a_day * len(days) + (seconds["train"] or 0) + (seconds["histories"] or 0)
        console.line(f"about {total:,.0f} s by the last runs")
