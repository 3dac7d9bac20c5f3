"""Console tables at the end of a run (stages, metrics, paths), and the status of a workspace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import pyarrow.dataset as ds

from learn_spark.core.console import Reporter
from learn_spark.core.quality.results import StoredResult, stored_results
from learn_spark.core.settings import Settings
from learn_spark.core.stages.registry import all_stages, find_stage
from learn_spark.core.table_text import Cell, Column
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.runs import Run, all_runs
from learn_spark.core.tables.snapshot import Snapshot, current_version, open_table
from learn_spark.core.tables.workspace import Workspace
from learn_spark.evaluation.labels import in_order, method_label
from learn_spark.evaluation.results import ResultKey, metric_rows, written_by
from learn_spark.pipeline.runner import Outcome


def show_outcomes(outcomes: Sequence[Outcome], console: Reporter) -> None:
    """Print one row per stage: rows in, out, refused, seconds; of a stage that is up to date, those of its last run."""
    rows: list[list[Cell]] = [
        [
            outcome.stage.name,
            "up to date" if outcome.up_to_date else "done",
            *(outcome.run.counts.get(name, 0) for name in ("rows_in", "rows_out", "refused")),
            outcome.run.seconds,
        ]
        for outcome in outcomes
    ]
    console.table(
        "Stages", ["stage", "state", "rows in", "rows out", "refused", Column("seconds", ".1f")], rows, name="stages"
    )


def show_metrics(workspace: Workspace, run: Run, console: Reporter, split: str = "test") -> None:
    """Print one row per method of an evaluate run's result: HR and NDCG at the two smallest k."""
    run_id = written_by(workspace, ResultKey.of_run(run))
    of_run = (ds.field("run_id") == (run_id or "")) & (ds.field("split") == split)
    evaluated = metric_rows(workspace, of_run)
    if not evaluated:
        return
    ks = sorted({int(row.metric.removeprefix("HR@")) for row in evaluated if row.metric.startswith("HR@")})[:2]
    metrics = [name for k in ks for name in (f"HR@{k}", f"NDCG@{k}")]
    rows: list[list[Cell]] = []
    for method in in_order(row.method for row in evaluated):
        values = {row.metric: row.value for row in evaluated if row.method == method}
        rows.append([method_label(method), *(values.get(metric) for metric in metrics)])
    size = f"{evaluated[0].users:,} users, {evaluated[0].catalogue:,} items"
    console.table(
        f"Metrics on the {split} split ({size})",
        ["method", *(Column(metric, ".4f") for metric in metrics)],
        rows,
        name="metrics",
    )


def show_places(settings: Settings, workspace: Workspace, console: Reporter) -> None:
    """Print the paths of the tables, and of the newest model, index and report, with the age of old ones."""
    console.line()
    console.line(f"tables  {workspace.place / 'tables'}")
    newest = {run.job: run for run in all_runs(workspace) if run.status == "done"}
    for job, label in (("train", "model"), ("export_index", "index"), ("report", "report")):
        for name in newest[job].outputs if job in newest else ():
            if "/" in name:
                passed = datetime.now(UTC) - newest[job].started_at
                # Older than this run, in all likelihood: a daily run without the report leaves last week's.
                old = f" (written {age(passed)} ago by learn-spark {job})" if passed > timedelta(hours=1) else ""
                console.line(f"{label:<7} {workspace.place / name}{old}")


def show_status(workspace: Workspace, console: Reporter) -> None:
    """Print the last run of every stage; version, rows, age, last run and last gate result of every table."""
    runs = all_runs(workspace)
    rows: list[list[Cell]] = []
    for stage in all_stages():
        last = next((run for run in reversed(runs) if run.job == stage.name), None)
        if last is None:
            rows.append([stage.name, "never run", None, None, None])
            continue
        rows.append([stage.name, last.status, last.started_at, last.counts.get("rows_out", 0), last.seconds])
    console.table(
        f"Stages of {workspace.place}",
        ["stage", "last run", "at (UTC)", "rows out", Column("seconds", ".1f")],
        rows,
        name="stages",
    )
    gates = _last_gates(workspace)
    now = datetime.now(UTC)
    tables: list[list[Cell]] = []
    whole: list[dict[str, object]] = []
    for name in sorted({table for stage in all_stages() for table in stage.writes} | {"runs", "quality_results"}):
        path = workspace.table(name)
        version = current_version(path)
        if version is None:
            continue
        written = datetime.fromtimestamp(open_table(path).history(1)[0]["timestamp"] / 1000, UTC)
        last = next((run for run in reversed(runs) if name in run.outputs), None)
        rows_now = Snapshot.open(path).rows
        gate = gates.get((name, version), "not evaluated" if contract(name).rules else "no rules")
        by = f"{last.job} {last.run_id} ({last.status})" if last else ""
        tables.append([name, version, rows_now, age(now - written), by, gate])
        of_run = {"run": last.run_id, "job": last.job, "status": last.status} if last else {"run": None}
        whole.append(
            {"table": name, "version": version, "rows": rows_now, "written_at": written, **of_run, "last gate": gate}
        )
    console.table("Tables", ["table", "version", "rows", "age", "last run", "last gate"], tables, name="tables")
    console.record("tables", whole)


def show_runs(workspace: Workspace, console: Reporter, *, stage: str | None = None, last: int | None = None) -> None:
    """Print one row per run, newest first; in JSON with their inputs, outputs, counts and messages.

    ``stage``: runs of this stage alone; ``last``: the newest so many. Raises SettingsError for an unknown stage.
    """
    if stage is not None:
        find_stage(stage)
    runs = [run for run in reversed(all_runs(workspace)) if stage in (None, run.job)][:last]
    if not runs:
        console.record("runs", [])
        console.line("no stage has run yet" if stage is None else f"{stage} has not run yet")
        return
    rows: list[list[Cell]] = [
        [
            run.run_id,
            run.job,
            run.status,
            run.started_at,
            run.seconds,
            *(run.counts.get(name) for name in ("rows_in", "rows_out", "refused")),
            ", ".join(f"{name} @ {version}" if "/" not in name else name for name, version in run.outputs.items()),
        ]
        for run in runs
    ]
    columns: list[str | Column] = ["run", "stage", "state", "started (UTC)", Column("seconds", ".1f")]
    columns += ["rows in", "rows out", "refused", "wrote"]
    console.table(f"Runs of {workspace.place}", columns, rows, name="runs")
    console.record("runs", [asdict(run) for run in runs])


def age(passed: timedelta) -> str:
    """A duration in its largest unit: 45 s, 12 min, 5 h, 3 d."""
    seconds = max(0, int(passed.total_seconds()))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:,} {unit}"
    return f"{seconds} s"


def _last_gates(workspace: Workspace) -> dict[tuple[str, int], str]:
    """(table, version) -> result of its newest evaluation: passed, passed with warnings, or failed."""
    evaluations: dict[tuple[str, int], dict[str, StoredResult]] = {}
    for row in stored_results(workspace):
        of_version = evaluations.setdefault((row.judged_table, row.judged_version), {})
        if of_version and next(iter(of_version.values())).run_id != row.run_id:
            of_version.clear()
        of_version[row.rule] = row
    verdicts = {}
    for key, results in evaluations.items():
        broken = [row.severity for row in results.values() if not row.passed]
        warnings = f", {len(broken)} warnings" if broken else ""
        verdicts[key] = "failed" if "fail" in broken else f"passed{warnings}"
    return verdicts
