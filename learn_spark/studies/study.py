"""A study: every row of a plan trained with every seed and evaluated, several at once, resumed where it was cut off."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from learn_spark.core.console import Reporter
from learn_spark.core.errors import LearnSparkError, SettingsError
from learn_spark.core.machine import available_cores
from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.settings.load import fingerprint
from learn_spark.core.settings.study import StudyRowSettings, StudySettings
from learn_spark.core.stages.context import SparkHolder
from learn_spark.core.stages.registry import find_stage
from learn_spark.core.storage.locks import lock_or_refuse
from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.forecast import texts_to_encode
from learn_spark.pipeline.gates import require_gates
from learn_spark.pipeline.runner import run_stages
from learn_spark.studies.figures import Study, collect
from learn_spark.studies.finished import find_model, find_trained
from learn_spark.studies.processes import Job, run_jobs
from learn_spark.studies.search import search_folder
from learn_spark.studies.show import show, write

TABLE_STAGES = ("ingest", "item_text", "embed_items", "histories")


class StudyError(LearnSparkError):
    """Some trainings of a study failed; ``failures``: its name -> the error."""

    def __init__(self, failures: Mapping[str, str], trainings: int) -> None:
        listed = "\n".join(f"  {name}: {error}" for name, error in failures.items())
        super().__init__(f"{len(failures)} of {trainings} trainings failed:\n{listed}")
        self.failures = dict(failures)


@dataclass(frozen=True)
class _Training:
    """A row with one seed. After a search ``config`` is the file of the best settings."""

    row: str
    seed: int
    config: str
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.row}, seed {self.seed}"

    def settings(self) -> Settings:
        return load_settings(self.config, self.overrides)


def run_study(
    plan: StudySettings,
    name: str,
    overrides: Sequence[str],
    console: Reporter,
    *,
    at_once: int | None = None,
    dry_run: bool = False,
    verbose: bool = False,
) -> Study | None:
    """Make the tables, train and evaluate what is missing, and collect the figures of all rows; None for ``dry_run``.

    ``overrides`` apply to the tables and all rows. ``at_once`` trainings run at a time, each on its share of the cores;
    None: as many as training.threads leaves cores for. What a plan shares with an earlier study, or with runs by hand,
    is not trained again. Raises SettingsError for a wrong plan before anything runs, LockedError where the same study
    is at work, and StudyError in the end where trainings failed; the others are done then.
    """
    shared = [*plan.overrides, *overrides]
    first = next(iter(plan.rows.values()))
    tables = load_settings(plan.tables or first.config, shared)
    workspace = Workspace.open(tables.place, tables.scratch)
    for row_name, row in plan.rows.items():
        _check_row(row_name, row, shared, tables)
    folder = workspace.scratch / "studies" / _file_name(name)
    if dry_run:
        _show_plan(plan, shared, workspace, console)
        return None
    folder.mkdir(parents=True, exist_ok=True)
    with lock_or_refuse(folder / ".lock", f"the study {name}", "a run of study"):
        if plan.tables is not None:
            run_stages(TABLE_STAGES, tables, console=console, verbose=verbose)
        for row in plan.rows.values():
            _embed_missing(load_settings(row.config, [*shared, *row.overrides]), workspace, console, verbose=verbose)
        # Here once, so that no training starts a JVM for them.
        require_gates(find_stage("train").reads, tables, workspace, console, verbose=verbose)
        failures = _search(plan, shared, folder, console, at_once)
        trainings = [t for t in _trainings(plan, shared) if t.row not in failures]
        failures |= _train(trainings, workspace, folder, console, at_once)
        _evaluate(trainings, workspace, tables, console, verbose=verbose)
        done = [find_trained(workspace, t.settings(), t.row) for t in trainings]
        study = collect(workspace, [one for one in done if one is not None], plan.slices, failures)
        results = workspace.place / "studies" / _file_name(name)
        write(study, results)
        if study.rows:
            show(study, results, console)
    if failures:
        raise StudyError(failures, len(plan.rows) * len(plan.seeds))
    return study


def _check_row(name: str, row: StudyRowSettings, shared: Sequence[str], tables: Settings) -> None:
    settings = load_settings(row.config, [*shared, *row.overrides])
    if settings.workspace != tables.workspace:
        raise SettingsError(
            f"row {name!r} has the workspace {settings.workspace}, the tables have {tables.workspace}; set workspace "
            "for all rows of the study"
        )
    if row.search and not settings.search.parameters:
        raise SettingsError(f"row {name!r} asks for a search, but search.parameters of {row.config} is empty")


def _trainings(plan: StudySettings, shared: Sequence[str]) -> list[_Training]:
    """Every row by its first seed, then by its second, and so on: a study that is cut off has whole columns."""
    trainings = []
    for seed in plan.seeds:
        for name, row in plan.rows.items():
            config, overrides = row.config, [*shared, *row.overrides]
            if row.search:
                config, overrides = str(_best_settings(row, shared)), list(shared)
            trainings.append(_Training(name, seed, config, (*overrides, f"training.seed={seed}")))
    return trainings


def _best_settings(row: StudyRowSettings, shared: Sequence[str]) -> Path:
    return search_folder(load_settings(row.config, [*shared, *row.overrides])) / "settings.yaml"


def _embed_missing(settings: Settings, workspace: Workspace, console: Reporter, *, verbose: bool) -> None:
    if settings.tower.reads_content and texts_to_encode(settings, workspace):
        run_stages(["embed_items"], settings, console=console, verbose=verbose)


def _search(
    plan: StudySettings, shared: Sequence[str], folder: Path, console: Reporter, at_once: int | None
) -> dict[str, str]:
    """Run the searches of the rows that ask for one; the row -> error of those that failed."""
    jobs = []
    for name, row in plan.rows.items():
        if row.search:
            arguments = ["search", row.config, "--trials", str(row.search), *_sets([*shared, *row.overrides])]
            jobs.append(Job(name, tuple(arguments), folder / "logs" / f"search-{_file_name(name)}.log"))
    if jobs:
        console.heading(f"{len(jobs)} rows are searched")
    threads = [load_settings(row.config, [*shared, *row.overrides]).training.threads for row in plan.rows.values()]
    return _run(jobs, "search", at_once or _at_once(threads), console)


def _train(
    trainings: Sequence[_Training], workspace: Workspace, folder: Path, console: Reporter, at_once: int | None
) -> dict[str, str]:
    """Train what is not trained; the name -> error of what failed."""
    missing = [t for t in trainings if find_model(workspace, t.settings()) is None]
    console.heading(f"{len(trainings) - len(missing)} of {len(trainings)} trainings are done")
    jobs = []
    # Rows of equal settings, such as a searched one whose search chose the preset, are trained once.
    distinct = {fingerprint(t.settings(), find_stage("train").sections): t for t in reversed(missing)}
    for training in reversed(distinct.values()):
        arguments = ["train", "--config", training.config, *_sets(training.overrides)]
        log = folder / "logs" / f"{_file_name(training.name)}.log"
        jobs.append(Job(training.name, tuple(arguments), log))
    return _run(jobs, "training", at_once or _at_once([t.settings().training.threads for t in missing]), console)


def _evaluate(
    trainings: Sequence[_Training], workspace: Workspace, tables: Settings, console: Reporter, *, verbose: bool
) -> None:
    """Evaluate the models that are not evaluated, each on all cores, their gates in one Spark session."""
    holder = SparkHolder(tables, verbose=verbose, at=console.at)
    try:
        for training in trainings:
            settings = training.settings()
            model = find_model(workspace, settings)
            if model is not None and find_trained(workspace, settings, training.row) is None:
                holder.get(workspace)
                console.heading(training.name)
                run_stages(["evaluate"], settings, console=console, verbose=verbose, model_id=model.model_id)
    finally:
        holder.stop()


def _run(jobs: Sequence[Job], kind: str, at_once: int, console: Reporter) -> dict[str, str]:
    failures: dict[str, str] = {}
    seconds: list[float] = []
    for ended in run_jobs(jobs, at_once, lambda job: console.say(f"{kind} started: {job.name} (log: {job.log})")):
        seconds.append(ended.seconds)
        left = (len(jobs) - len(seconds)) * sum(seconds) / len(seconds) / at_once
        if ended.status:
            failures[ended.job.name] = ended.error()
        outcome = "failed" if ended.status else "done"
        console.say(
            f"{kind} {outcome}: {ended.job.name}, {ended.seconds:,.0f} s; {len(seconds)} of {len(jobs)}, "
            f"about {left:,.0f} s left"
        )
    return failures


def _at_once(threads: Sequence[int | None]) -> int:
    """As many trainings as the cores have room for; a training without training.threads takes all of them."""
    cores = len(available_cores())
    return max(1, cores // max((count or cores for count in threads), default=cores))


def _show_plan(plan: StudySettings, shared: Sequence[str], workspace: Workspace, console: Reporter) -> None:
    seconds: list[float] = []
    missing = 0
    for training in _trainings(plan, shared):
        if plan.rows[training.row].search and not Path(training.config).is_file():
            console.line(f"{training.name}: after the search of its row")
            missing += 1
            continue
        done = find_trained(workspace, training.settings(), training.row)
        console.line(f"{training.name}: {'to train' if done is None else f'done, run {done.run_id}'}")
        missing += done is None
        seconds += [] if done is None else [done.seconds]
    if missing and seconds:
        console.line(f"{missing} trainings are left, about {missing * sum(seconds) / len(seconds):,.0f} s one by one")


def _sets(overrides: Sequence[str]) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "study"
