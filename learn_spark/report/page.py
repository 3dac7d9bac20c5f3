"""The report page of a pipeline: metrics, examples, runs, gates and lineage as one HTML file without scripts."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.runs import all_runs
from learn_spark.core.tables.workspace import Workspace
from learn_spark.evaluation.labels import BASELINES, FIRST_METRIC, method_label
from learn_spark.features.ledger import READABLE
from learn_spark.model.store import read_curve
from learn_spark.report.ads import ads_ranker
from learn_spark.report.examples import Examples, examples_of
from learn_spark.report.figures import MetricTable, metric_tables, slice_plots
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
    """The HTML page about ``run_id`` and the runs connected to it, or about the newest run of every stage.

    A section without data is left out; missing examples are explained. Raises LearnSparkError if there is no run, or
    no run of this id.
    """
    road = road_of(all_runs(workspace), run_id)
    model_id = road.model_id
    manifest = manifest_of(workspace, model_id)
    evaluated, ranked = road.of("evaluate"), road.of("rank_ads")
    metrics = metric_tables(workspace, evaluated) if evaluated else []
    tables, release = table_gates(workspace, road), release_of(workspace, road)
    gates = [*tables, *([release.gate] if release and release.gate else [])]
    trained_method = method_label(manifest.method) if manifest else ""
    examples, no_examples = _examples(workspace, road)
    return (
        environment()
        .get_template("page.html.jinja")
        .render(
            workspace=str(workspace.place),
            written=datetime.now(UTC),
            road=road,
            facts=_facts(road, metrics, gates, release, trained_method),
            metrics=metrics,
            slices=slice_plots(workspace, evaluated) if evaluated else [],
            ads=ads_ranker(workspace, ranked) if ranked else None,
            model_id=model_id,
            trained_method=trained_method,
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
    """(examples of the model of these runs or None, the reason for None)."""
    model_id, run = road.model_id, road.of("evaluate") or road.of("train")
    if model_id is None or run is None:
        return None, "no model was trained in these runs."
    try:
        examples = examples_of(workspace, model_id, run.inputs)
    except LearnSparkError as error:
        return None, str(error)
    return examples, "" if examples else "no user has a target on the test split."


def _curves(workspace: Workspace, model_id: str | None) -> list[Plot]:
    points = read_curve(workspace.place / "models" / str(model_id))
    epochs = [float(point["epoch"]) for point in points]
    plots: list[Plot] = []
    for name, title in CURVES.items():
        ys = [float(point.get(name, math.nan)) for point in points]
        if any(map(math.isfinite, ys)):
            plots.append(draw_curve(f"curve-{len(plots)}", title, epochs, {title: ys}))
    return plots


def _facts(
    road: Road, metrics: list[MetricTable], gates: list[Gate], release: Release | None, trained_method: str
) -> list[Fact]:
    """The key figures of the page's head. ``trained_method`` is the trained tower's label in the metric tables."""
    facts = []
    for table in metrics[:1]:
        at = table.names.index(FIRST_METRIC) if FIRST_METRIC in table.names else 0
        values = {name: cell.value for name, cells in table.lines if (cell := cells[at]) is not None}
        # Released are the vectors: the figure without a reranker, which only this evaluation used.
        vectors = f"{trained_method}, vectors only"
        shown = vectors if vectors in values else trained_method
        if shown in values:
            best = max(
                (label for label in BASELINES.values() if label in values), key=lambda name: values[name], default=None
            )
            note = "no baseline was evaluated"
            if best is not None:
                note = f"best baseline: {best}, {values[best]:.4f}"
            if shown == vectors:
                note += f"; with the reranker, which is not released: {values[trained_method]:.4f}"
            what = "released vectors" if release is not None and release.status in READABLE else "vectors"
            name = f"{trained_method}, {what}: {table.names[at]} on {table.split}"
            facts.append(Fact(name, f"{values[shown]:.4f}", note))
        facts.append(Fact("Ranked", f"{table.users:,} users", f"against {table.catalogue:,} items"))
    rules = [rule for gate in gates for rule in gate.rules]
    if rules:
        count = {verdict: sum(rule.verdict == verdict for rule in rules) for verdict in ("passed", "warning", "failed")}
        note = f"{count['warning']} warnings, {count['failed']} failed"
        facts.append(Fact("Rules passed", f"{count['passed']} of {len(rules)}", note))
    if release is not None:
        facts.append(Fact("Release", release.status, f"as of {release.as_of:%Y-%m-%d %H:%M:%S} UTC"))
    started = min(run.started_at for run in road.runs)
    facts.append(
        Fact("Time", f"{sum(run.seconds for run in road.runs):,.0f} s", f"first run {started:%Y-%m-%d %H:%M} UTC")
    )
    return facts


def _settings(workspace: Workspace, road: Road) -> list[tuple[str, str]]:
    """(stages, their resolved settings as YAML, secrets redacted); stages with equal settings share an entry."""
    stages: dict[str, list[str]] = {}
    for run in road.runs:
        path = workspace.place / "runs" / run.run_id / "settings.yaml"
        if path.is_file():
            stages.setdefault(path.read_text(), []).append(run.job)
    return [(", ".join(jobs), text) for text, jobs in stages.items()]
