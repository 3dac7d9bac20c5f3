"""The page: everything that is told about a road, put together and rendered as one HTML file without a script."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.lineage import all_runs
from learn_spark.core.tables.workspace import Workspace
from learn_spark.model.store import read_curve
from learn_spark.report.ads import ads_ranker
from learn_spark.report.examples import Examples, examples_of
from learn_spark.report.figures import FIRST_METRIC, MetricTable, label_of, metric_tables, slice_plots
from learn_spark.report.gates import Gate, Release, release_of, table_gates
from learn_spark.report.plots.curve import draw_curve
from learn_spark.report.plots.render import Plot
from learn_spark.report.road import Road, road_of
from learn_spark.report.templates import Fact, environment
from learn_spark.report.versions import manifest_of, versions_of

CURVES = {
    "loss": "Training loss",
    "validation NDCG@10": "NDCG@10 on validation",
    "validation HR@10": "HR@10 on validation",
}


def render(workspace: Workspace, run_id: str | None = None) -> str:
    """The page about a run, or about the newest run of every stage; what is not there is left out, or said.

    Raises LearnSparkError where there is no run, or none of this id.
    """
    road = road_of(all_runs(workspace), run_id)
    model_id = road.model_id
    manifest = manifest_of(workspace, model_id)
    evaluated, ranked = road.of("evaluate"), road.of("rank_ads")
    metrics = metric_tables(workspace, evaluated) if evaluated else []
    tables, release = table_gates(workspace, road), release_of(workspace, road)
    own = label_of(manifest["method"]) if manifest else ""
    examples, no_examples = _examples(workspace, road)
    return (
        environment()
        .get_template("page.html.jinja")
        .render(
            workspace=str(workspace.root),
            written=datetime.now(UTC),
            road=road,
            facts=_facts(road, metrics, [*tables, *([release.gate] if release and release.gate else [])], release, own),
            metrics=metrics,
            slices=slice_plots(workspace, evaluated) if evaluated else [],
            ads=ads_ranker(workspace, ranked) if ranked else None,
            model_id=model_id,
            own=own,
            manifest=manifest,
            curves=_curves(workspace, model_id) if manifest else [],
            examples=examples,
            no_examples=no_examples,
            gates=tables,
            release=release,
            versions=versions_of(workspace, road, manifest),
            settings=_settings(workspace, road),
        )
    )


def _examples(workspace: Workspace, road: Road) -> tuple[Examples | None, str]:
    """(examples of the road's model, or why there are none)."""
    model_id, run = road.model_id, road.of("evaluate") or road.of("train")
    if model_id is None or run is None:
        return None, "No model was trained on this road."
    try:
        found = examples_of(workspace, model_id, run.inputs)
    except LearnSparkError as error:
        return None, str(error)
    return found, "" if found else "No user has a target on the test split."


def _curves(workspace: Workspace, model_id: str | None) -> list[Plot]:
    points = read_curve(workspace.root / "models" / str(model_id))
    epochs = [float(point["epoch"]) for point in points]
    plots: list[Plot] = []
    for name, title in CURVES.items():
        ys = [float(point.get(name, math.nan)) for point in points]
        if any(map(math.isfinite, ys)):
            plots.append(draw_curve(f"curve-{len(plots)}", title, epochs, {title: ys}))
    return plots


def _facts(road: Road, metrics: list[MetricTable], gates: list[Gate], release: Release | None, own: str) -> list[Fact]:
    """What a reader asks first. ``own`` is the name of the tower's method among the metrics' lines."""
    facts = []
    for table in metrics[:1]:
        at = table.names.index(FIRST_METRIC) if FIRST_METRIC in table.names else 0
        values = {name: cell.value for name, cells in table.lines if (cell := cells[at]) is not None}
        others = {name: value for name, value in values.items() if name != own}
        if own in values:
            note = "no other method was ranked"
            if others:
                best = max(others, key=lambda name: others[name])
                note = f"best of the others: {best}, {others[best]:.4f}"
            facts.append(Fact(f"{own}: {table.names[at]} on {table.split}", f"{values[own]:.4f}", note))
        facts.append(Fact("Ranked", f"{table.users:,} users", f"against {table.catalogue:,} items"))
    judged = [judgement for gate in gates for judgement in gate.judgements]
    if judged:
        count = {verdict: sum(j.verdict == verdict for j in judged) for verdict in ("passed", "warning", "failed")}
        note = f"{count['warning']} warnings, {count['failed']} failed"
        facts.append(Fact("Rules passed", f"{count['passed']} of {len(judged)}", note))
    if release is not None:
        facts.append(Fact("Release", release.status, f"as of {release.as_of:%Y-%m-%d %H:%M:%S} UTC"))
    began = min(run.started_at for run in road.runs)
    facts.append(
        Fact("Time", f"{sum(run.seconds for run in road.runs):,.0f} s", f"first run {began:%Y-%m-%d %H:%M} UTC")
    )
    return facts


def _settings(workspace: Workspace, road: Road) -> list[tuple[str, str]]:
    """(stages, the settings that they resolved to), secrets redacted as they were saved; equal ones together."""
    found: dict[str, list[str]] = {}
    for run in road.runs:
        path = workspace.root / "runs" / run.run_id / "settings.yaml"
        if path.is_file():
            found.setdefault(path.read_text(encoding="utf-8"), []).append(run.job)
    return [(", ".join(jobs), text) for text, jobs in found.items()]
