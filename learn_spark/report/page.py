"""The front page of a workspace and the page of one run, each one HTML file without scripts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.runs import Run, all_runs
from learn_spark.core.tables.workspace import Workspace
from learn_spark.evaluation.labels import method_label
from learn_spark.features.ledger import READABLE, ledger, release_in_force
from learn_spark.model.store import read_curve
from learn_spark.report.ads import ads_ranker
from learn_spark.report.examples import Examples, examples_of
from learn_spark.report.figures import MetricTable, metric_tables, slice_plots
from learn_spark.report.front.front import front_of, publish_run
from learn_spark.report.front.graph import graph_of
from learn_spark.report.front.steps import steps_of
from learn_spark.report.front.worth import NOTHING, Measured, first_fact, measured, released_line, sentence
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


@dataclass(frozen=True)
class Section:
    """A section of the page: its key, by which its template is named and links lead to it, and its title."""

    key: str
    title: str


def render(workspace: Workspace, run_id: str | None = None) -> str:
    """The HTML page about ``run_id`` and the runs connected to it, or the front page of the workspace.

    The front page is about the newest run of every stage, and about the model of the release in force; without a
    release, about the newest model. A section without data is left out; missing examples are explained. Raises
    LearnSparkError if there is no run, or no run of this id.
    """
    runs = all_runs(workspace)
    road = road_of(runs, run_id)
    releases = ledger(workspace)
    row = release_in_force(releases) if run_id is None else None
    published = publish_run(releases, road, row)
    # A release of a model that is not in this workspace, or not any more, has no figures here.
    own = row is not None and manifest_of(workspace, row.model_id) is not None
    model_id = row.model_id if row and own else road.model_id
    manifest = manifest_of(workspace, model_id)
    measure = _measured(workspace, runs, road, model_id)
    ranked = road.of("rank_ads")
    tables, release = table_gates(workspace, road), release_of(releases, published)
    gates = [*tables, *([release.gate] if release and release.gate else [])]
    verdicts = {gate.name: gate.verdict for gate in tables}
    trained_method = method_label(manifest.method) if manifest else ""
    examples, no_examples = _examples(workspace, road, runs, measure, model_id)
    behind = road_of(runs, published) if row and any(run.run_id == published for run in runs) else road
    parts: dict[str, Any] = {
        "workspace": str(workspace.place),
        "name": workspace.place.name,
        "written": datetime.now(UTC),
        "road": road,
        "front": front_of(workspace, runs, verdicts, releases, row) if run_id is None else None,
        "worth": sentence(row, measure if own or not row else NOTHING, manifest.method if manifest else None),
        "facts": _facts(road, measure.tables, gates, release, trained_method, own=own or run_id is not None),
        "own": own,
        "steps": steps_of(road.runs, verdicts),
        "graph": graph_of(behind.runs, runs),
        "behind": behind,
        "metrics": measure.tables,
        "slices": slice_plots(workspace, measure.evaluated) if measure.evaluated else [],
        "ads": ads_ranker(workspace, ranked) if ranked else None,
        "model_id": model_id,
        "trained_method": trained_method,
        "highlighted": released_line(trained_method, [label for table in measure.tables for label, _ in table.lines]),
        "manifest": manifest,
        "curves": _curves(workspace, model_id) if manifest else [],
        "examples": examples,
        "no_examples": no_examples,
        "gates": tables,
        "release": release,
        "versions": versions_of(workspace, road, manifest),
        "settings": _settings(workspace, road),
    }
    return environment().get_template("page.html.jinja").render(**parts, sections=_sections(parts))


def _sections(parts: Mapping[str, Any]) -> list[Section]:
    """The sections that have data, in the order of the page."""
    front = parts["front"]
    named = {
        "recommendations": ("Recommendations", True),
        "runs": ("The road", True),
        "metrics": ("Metrics", parts["metrics"]),
        "slices": ("Slices", parts["slices"]),
        "models": ("Models side by side", front and front.models),
        "tower": ("The tower", parts["manifest"]),
        "examples": ("Items", parts["examples"]),
        "tables": ("Tables", front and front.tables),
        "gates": ("Gates", True),
        "releases": ("Releases", front and front.releases),
        "lineage": ("Lineage", True),
        "ads": ("Ads rankers", parts["ads"]),
        "experiments": ("Experiments", front and front.experiments),
        "versions": ("Versions", True),
        "settings": ("Settings", True),
    }
    return [Section(key, title) for key, (title, data) in named.items() if data]


def _measured(workspace: Workspace, runs: Sequence[Run], road: Road, model_id: str | None) -> Measured:
    """The figures of the page: of a run's page those of its road, of the front page the newest of its model."""
    if road.chosen is None:
        return measured(workspace, runs, model_id)
    evaluated = road.of("evaluate")
    return Measured(evaluated, tuple(metric_tables(workspace, evaluated)) if evaluated else ())


def _examples(
    workspace: Workspace, road: Road, runs: Sequence[Run], measure: Measured, model_id: str | None
) -> tuple[Examples | None, str]:
    """(examples of the model, by the tables that its evaluation or training read, or None; the reason for None)."""
    trained = next((run for run in reversed(runs) if model_id is not None and run.model_id == model_id), None)
    run = measure.evaluated or road.of("evaluate") or trained
    if model_id is None or run is None:
        return None, "no model was trained in these runs."
    if run.inputs.get("model", model_id) != model_id:
        run = trained or run
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
    road: Road,
    metrics: Sequence[MetricTable],
    gates: list[Gate],
    release: Release | None,
    trained_method: str,
    *,
    own: bool,
) -> list[Fact]:
    """The key figures of the page's head. ``trained_method`` is the trained tower's label in the metric tables;
    ``own``: whether the release is of that model.
    """
    facts = []
    for table in metrics[:1]:
        first = first_fact(table, trained_method, released=own and release is not None and release.status in READABLE)
        facts += [first] if first else []
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
