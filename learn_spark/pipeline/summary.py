"""The tables that end a run: stages with their counts, metrics, and where everything lies."""

from __future__ import annotations

from collections.abc import Sequence

from learn_spark.pipeline.registry import all_stages
from learn_spark.pipeline.runner import Outcome
from learn_spark.progress import Reporter
from learn_spark.retrieval.results import ResultKey, written_by
from learn_spark.settings import Settings
from learn_spark.tables.lineage import Run, all_runs
from learn_spark.tables.log import read_rows
from learn_spark.tables.snapshot import current_version
from learn_spark.tables.workspace import Workspace

METHODS = {
    "popularity": "popularity",
    "markov": "item-to-item Markov",
    "frozen": "frozen embeddings, untrained",
    "sasrec": "SASRec",
    "hstu": "HSTU",
    "learn": "LEARN",
}


def show_outcomes(outcomes: Sequence[Outcome], report: Reporter) -> None:
    """One row a stage: rows in, out, refused, seconds. A rested stage shows its last run's figures."""
    rows = []
    for outcome in outcomes:
        counts = outcome.run.counts
        rows.append(
            [
                outcome.stage.name,
                "up to date" if outcome.rested else "done",
                *(f"{counts.get(name, 0):,}" for name in ("rows_in", "rows_out", "refused")),
                f"{outcome.run.seconds:.1f}",
            ]
        )
    report.table("Stages", ["stage", "state", "rows in", "rows out", "refused", "seconds"], rows)


def show_metrics(workspace: Workspace, run: Run, report: Reporter, cut: str = "test") -> None:
    """One row a method of what an evaluating run wrote, or found written: HR and NDCG at the two smallest k."""
    run_id = written_by(workspace, ResultKey.of_run(run))
    found = [r for r in read_rows(workspace.table("evaluations")) if r["run_id"] == run_id and r["cut"] == cut]
    if not found:
        return
    ks = sorted({int(row["metric"].removeprefix("HR@")) for row in found if row["metric"].startswith("HR@")})[:2]
    metrics = [name for k in ks for name in (f"HR@{k}", f"NDCG@{k}")]
    rows = []
    for method, label in METHODS.items():
        values = {row["metric"]: row["value"] for row in found if row["method"] == method}
        if values:
            rows.append([label, *(f"{values[m]:.4f}" if m in values else "" for m in metrics)])
    size = f"{found[0]['users']:,} users, {found[0]['catalogue']:,} items"
    report.table(f"Metrics on the {cut} cut ({size})", ["method", *metrics], rows)


def show_places(settings: Settings, workspace: Workspace, report: Reporter) -> None:
    """Where the tables, the newest model and the report are."""
    report.line()
    report.line(f"tables  {workspace.root / 'tables'}")
    newest = {run.job: run for run in all_runs(workspace) if run.status == "done"}
    for job, label in (("train", "model"), ("export_index", "index"), ("report", "report")):
        for name in newest[job].outputs if job in newest else ():
            if "/" in name:
                report.line(f"{label:<7} {workspace.root / name}")


def show_status(workspace: Workspace, report: Reporter) -> None:
    """Every table's version and last writer, every stage's last run."""
    runs = all_runs(workspace)
    rows = []
    for stage in all_stages():
        last = next((run for run in reversed(runs) if run.job == stage.name), None)
        if last is None:
            rows.append([stage.name, "never run", "", "", ""])
            continue
        when = last.started_at.strftime("%Y-%m-%d %H:%M")
        rows.append([stage.name, last.status, when, f"{last.counts.get('rows_out', 0):,}", f"{last.seconds:.1f}"])
    report.table(f"Stages of {workspace.root}", ["stage", "last run", "at (UTC)", "rows out", "seconds"], rows)
    tables = []
    for name in sorted({table for stage in all_stages() for table in stage.writes} | {"runs"}):
        version = current_version(workspace.table(name))
        if version is not None:
            from learn_spark.tables.snapshot import Snapshot

            tables.append([name, str(version), f"{Snapshot.open(workspace.table(name)).rows:,}"])
    report.table("Tables", ["table", "version", "rows"], tables)
