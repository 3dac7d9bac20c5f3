"""Releases for past days, each with the events before its day only, as training data for a time without releases."""

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
    """ISO dates from ``first`` to ``last`` (both included) in steps of ``every`` days. Raises SettingsError."""
    try:
        start, end = date.fromisoformat(first), date.fromisoformat(last)
    except ValueError as error:
        raise SettingsError(f"--from {first!r} and --to {last!r} must be days such as 2024-01-31: {error}") from None
    if end < start:
        raise SettingsError(f"--to {last} is before --from {first}")
    return [str(start + timedelta(days=n)) for n in range(0, (end - start).days + 1, every)]


def backfill(
    load: Callable[[Sequence[str]], Settings],
    days: Sequence[str],
    *,
    console: Reporter,
    dry_run: bool = False,
    verbose: bool = False,
    wait: bool = False,
) -> None:
    """Publish one backfilled release per day, as of the beginning of the day.

    ``load`` returns the settings with further overrides. The tower is trained once, as of the first day, so that it
    uses no later event; the release of a day writes the changes since the day before. At the end, and if a day fails,
    the histories of the settings are restored. The release in force does not change.
    """
    settings = load(())
    workspace = (Workspace.planned if dry_run else Workspace.open)(settings.place, settings.scratch)
    if dry_run:
        _show(workspace, days, console)
        return
    holder = SparkHolder(settings, verbose=verbose, at=console.at)
    # One session for all days.
    holder.get(workspace)
    try:
        for number, day in enumerate(days):
            console.heading(f"{day} ({number + 1} of {len(days)})")
            past = _for_a_past_day(load([f"histories.as_of={day}", "release.backfill=true"]))
            run_stages(LATER_DAY if number else FIRST_DAY, past, console=console, verbose=verbose, wait=wait)
    finally:
        try:
            run_stages(["histories"], settings, console=console, verbose=verbose, wait=wait)
        finally:
            holder.stop()


def _for_a_past_day(settings: Settings) -> Settings:
    """``settings`` without the lower bound of users in user_histories, because the previous version is of a later
    time."""
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
    console.line("then: histories with the settings unchanged")
    if None in seconds.values():
        missing = ", ".join(job for job, took in seconds.items() if took is None)
        console.line(f"time: unknown, because {missing} has not run in this workspace")
    else:
        per_day = sum(seconds[job] or 0 for job in LATER_DAY)
        total = per_day * len(days) + (seconds["train"] or 0) + (seconds["histories"] or 0)
        console.line(f"time: about {total:,.0f} s, from the duration of the last runs")
