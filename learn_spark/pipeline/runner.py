"""Runs stages that are not up to date, in order, and records every run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from learn_spark.core.causes import cause_of
from learn_spark.core.console import Reporter
from learn_spark.core.console_log import CONSOLE_LOG, ConsoleLog
from learn_spark.core.errors import GateError, LearnSparkError
from learn_spark.core.quality.expectations import prepare
from learn_spark.core.quality.table_gate import check_rule_names
from learn_spark.core.settings import Settings, save_settings
from learn_spark.core.settings.load import fingerprint
from learn_spark.core.stages.code import stage_version
from learn_spark.core.stages.context import SparkHolder, StageContext
from learn_spark.core.stages.observer import Observer
from learn_spark.core.stages.registry import find_stage, writers_of
from learn_spark.core.stages.stage import Stage, StageResult
from learn_spark.core.tables.runs import ROWS_OF_MANY_RUNS, Run, all_runs, new_run_id, record
from learn_spark.core.tables.session import started_jobs
from learn_spark.core.tables.snapshot import current_version, logs_listed_once
from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.forecast import forecast
from learn_spark.pipeline.gates import Gates
from learn_spark.pipeline.locks import exclusively_written, writing
from learn_spark.pipeline.preflight import Delivery, check_settings, delivery
from learn_spark.pipeline.registration import register_after_run
from learn_spark.pipeline.tracking.observers import observer_of

# Nothing reads these when the run has failed.
NAMED_AFTER_A_RUN = ("reports/{run}.html", "rankings/{run}")


@dataclass(frozen=True)
class Plan:
    """The inputs of a stage, and either the run that is up to date or the reason to run."""

    inputs: Mapping[str, str]
    config_hash: str
    done_by: Run | None
    reason: str


@dataclass(frozen=True)
class Outcome:
    """The result of a stage. ``run``: the run of its outputs; ``up_to_date``: whether that is an earlier run."""

    stage: Stage
    run: Run
    up_to_date: bool


def plan_stage(stage: Stage, settings: Settings, workspace: Workspace, model_id: str | None = None) -> Plan:
    """The plan of a stage, from its inputs and its last run. Raises LearnSparkError if an input table is missing.

    ``model_id``: the model of a stage that reads one; None: the newest that fits.
    """
    stage = stage.under(settings)
    inputs: dict[str, str] = {}
    for table in stage.reads:
        version = current_version(workspace.table(table))
        if version is None:
            raise LearnSparkError(
                f"{stage.name} reads the table {table}, which does not exist; learn-spark {writers_of([table])[0]} "
                "writes it"
            )
        inputs[table] = str(version)
    inputs.update(stage.other_inputs(settings, workspace, model_id))
    config_hash = fingerprint(settings, stage.sections)
    done = [run for run in all_runs(workspace) if run.job == stage.name and run.status == "done"]
    if not done:
        return Plan(inputs, config_hash, None, "it has not run yet")
    last = done[-1]
    if last.config_hash != config_hash:
        return Plan(inputs, config_hash, None, "its settings changed")
    if last.code_version != stage_version(stage):
        return Plan(inputs, config_hash, None, "its code changed")
    for name in sorted({*inputs, *last.inputs}):
        if inputs.get(name) != last.inputs.get(name):
            return Plan(inputs, config_hash, None, f"its input {name} changed")
    for name, value in last.outputs.items():
        if "/" in name:
            if not (workspace.place / name).exists():
                return Plan(inputs, config_hash, None, f"its output {name} does not exist any more")
        elif name not in ROWS_OF_MANY_RUNS and str(current_version(workspace.table(name))) != value:
            return Plan(inputs, config_hash, None, f"its output {name} was changed by another run")
    return Plan(inputs, config_hash, last, "nothing changed")


def run_stages(
    names: Sequence[str],
    settings: Settings,
    *,
    console: Reporter,
    dry_run: bool = False,
    force: bool = False,
    verbose: bool = False,
    model_id: str | None = None,
    wait: bool = False,
) -> list[Outcome]:
    """Run the named stages in order, each if its inputs, settings or code changed (or ``force``).

    Stages after train use its model; without train, they use ``model_id`` or the newest model that fits. Every run is
    recorded, failed ones included; with ``catalog.after_run`` the tables are registered at the end. Raises the
    exception of a failed stage, and LockedError if another process writes one of the tables that these stages write;
    with ``wait``, waits until it has ended.
    """
    stages = [find_stage(name).under(settings) for name in names]
    check_rule_names(settings.quality)
    check_settings(stages, settings)
    workspace = (Workspace.planned if dry_run else Workspace.open)(settings.place, settings.scratch)
    if dry_run:
        _show_plans(stages, settings, workspace, console, model_id, force=force)
        return []
    observer = observer_of(settings, workspace, console)
    holder = SparkHolder(settings, verbose=verbose, meanwhile=prepare, at=console.at)
    gates = Gates(workspace, settings.quality, lambda: holder.get(workspace), console)
    outcomes: list[Outcome] = []
    known: dict[str, dict[int, int]] = {}
    job = f"a run of {', '.join(names)}"
    log = ConsoleLog(workspace.folder("logs") / CONSOLE_LOG)
    with (
        writing(workspace, exclusively_written(stages), job, wait=wait, say=console.say) as held,
        console.kept_in(log),
    ):
        try:
            for number, stage in enumerate(stages, 1):
                console.heading(f"[{number}/{len(stages)}] {stage.name}: {stage.summary}")
                held.at(f"stage {stage.name}, {number} of {len(stages)}")
                with logs_listed_once(known):
                    plan = plan_stage(stage, settings, workspace, model_id)
                outcomes.append(
                    _run_stage(stage, plan, settings, workspace, console, holder, gates, observer, force=force)
                )
                if not outcomes[-1].up_to_date:
                    known.clear()
                if stage.name == "train":
                    model_id = outcomes[-1].run.model_id
        finally:
            holder.stop()
            gates.write_docs()
            observer.close()
    # After the session of the stages: with a metastore from its start, a metastore that is away would end the run.
    if settings.catalog.after_run and not all(one.up_to_date for one in outcomes):
        register_after_run(settings, workspace, console, verbose=verbose)
    return outcomes


def _run_stage(
    stage: Stage,
    plan: Plan,
    settings: Settings,
    workspace: Workspace,
    console: Reporter,
    holder: SparkHolder,
    gates: Gates,
    observer: Observer,
    *,
    force: bool,
) -> Outcome:
    if plan.done_by and not force:
        console.say(f"up to date (run {plan.done_by.run_id})")
        return Outcome(stage, plan.done_by, up_to_date=True)
    console.say(f"running: {'--force was given' if plan.done_by else plan.reason}")
    run_id = new_run_id()
    context = StageContext(
        settings, workspace, run_id, plan.inputs, console, holder, stage_version(stage), force, observer
    )
    started, clock, jobs = datetime.now(UTC), time.monotonic(), started_jobs()
    save_settings(settings, workspace.place / "runs" / run_id)
    begun = Run(
        run_id, stage.name, "running", plan.config_hash, context.code_version, dict(plan.inputs), {}, {}, 0.0, started
    )
    observer.started(stage, begun)

    def finished(status: str, result: StageResult | None, message: str | None = None) -> Run:
        outputs = {}
        for table in stage.writes:
            version = current_version(workspace.table(table))
            if version is not None:
                outputs[table] = str(version)
        counts: dict[str, int] = {}
        if result:
            outputs.update(result.outputs)
            counts = {"rows_in": result.rows_in, "rows_out": result.rows_out, "refused": result.refused}
            counts.update(result.counts)
        if stage.uses_spark:
            counts["spark_jobs"] = started_jobs() - jobs
        run = replace(
            begun,
            status=status,
            outputs=outputs,
            counts=counts,
            seconds=time.monotonic() - clock,
            message=message,
        )
        record(workspace, run)
        observer.finished(stage, run)
        return run

    result: StageResult | None = None
    pinned = {table: int(plan.inputs[table]) for table in stage.reads}
    try:
        for table, version in pinned.items():
            gates.require(table, version, run_id, pinned)
        console.at("working")
        result = stage.load().run(context)
        for note in result.notes:
            console.say(note, kept=False)
        versions = {table: current_version(workspace.table(table)) for table in stage.writes}
        written = {table: version for table, version in versions.items() if version is not None}
        for table, version in written.items():
            gates.require(table, version, run_id, pinned | written, result.measures)
    except GateError as error:
        finished("refused", result, str(error))
        raise
    except Exception as error:
        message = str(error) if isinstance(error, LearnSparkError) else cause_of(error)
        # Where the disk is full, the error of the stage is the one to report, and not that of recording it. Without
        # the removal each further try would fill what became free.
        for name in NAMED_AFTER_A_RUN:
            with suppress(Exception):
                (workspace.place / name.format(run=run_id)).remove()
        with suppress(Exception):
            finished("failed", result, message[:2000])
        raise
    return Outcome(stage, finished("done", result), up_to_date=False)


def _show_plans(
    stages: Sequence[Stage],
    settings: Settings,
    workspace: Workspace,
    console: Reporter,
    model_id: str | None,
    *,
    force: bool,
) -> None:
    """Print what each stage would do. Raises LearnSparkError where a run would stop at a stage."""
    will_write: set[str] = set()
    arriving: Delivery | None = None
    for stage in stages:
        missing = [t for t in stage.reads if current_version(workspace.table(t)) is None and t not in will_write]
        if missing:
            raise LearnSparkError(
                f"{stage.name} cannot run: there is no table {', '.join(missing)}; learn-spark "
                f"{writers_of(missing)[0]} comes first"
            )
        if stage.name == "ingest":
            arriving = delivery(settings, workspace, force=force)
        upstream = sorted(will_write.intersection({*stage.reads, "model" if stage.reads_model else ""}))
        if upstream:
            reason: str | None = f"{', '.join(upstream)} may change"
        else:
            plan = plan_stage(stage, settings, workspace, model_id)
            reason = "--force was given" if plan.done_by and force else None if plan.done_by else plan.reason
        if reason is None:
            console.line(f"{stage.name}: up to date")
            continue
        console.line(f"{stage.name}: would run, because {reason}")
        for sentence in forecast(stage, settings, workspace, arriving, will_write):
            console.say(sentence)
        will_write.update(stage.writes)
        if stage.name == "train":
            will_write.add("model")
