"""The report stage: one self-contained HTML page: the road, the metrics, the learning curve, the gate, the lineage."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from learn_spark.errors import LearnSparkError
from learn_spark.pipeline.registry import all_stages
from learn_spark.pipeline.stage import StageContext, StageResult
from learn_spark.pipeline.summary import METHODS
from learn_spark.report.curve import Curve, draw
from learn_spark.settings import Settings, save_settings
from learn_spark.tables.lineage import Run, all_runs
from learn_spark.tables.log import read_rows
from learn_spark.tables.workspace import Workspace
from learn_spark.training.model_store import read_curve


def other_inputs(settings: Settings, workspace: Workspace) -> dict[str, str]:
    """The newest finished run of every other stage."""
    return {f"run:{run.job}": run.run_id for run in _newest(workspace)}


def _newest(workspace: Workspace) -> list[Run]:
    done = {run.job: run for run in all_runs(workspace) if run.status == "done" and run.job != "report"}
    return [done[stage.name] for stage in all_stages() if stage.name in done]


def run(context: StageContext) -> StageResult:
    """Write reports/index.html from the newest finished run of every stage."""
    runs = _newest(context.workspace)
    if not runs:
        raise LearnSparkError("report: no stage has run yet; there is nothing to tell")
    evaluated = next((run for run in runs if run.job == "evaluate"), None)
    trained = next((run for run in runs if run.job == "train"), None)
    model = next((n.removeprefix("models/") for n in (trained.outputs if trained else ()) if "/" in n), None)
    page = (
        _environment()
        .get_template("page.html.jinja")
        .render(
            workspace=str(context.workspace.root),
            written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            runs=runs,
            metrics=_metrics(context.workspace, evaluated.run_id) if evaluated else [],
            manifest=_manifest(context.workspace, model),
            curve=_curve(context.workspace, model),
            release=_release(context.workspace),
        )
    )
    folder = context.folder("reports")
    path, temporary = folder / "index.html", folder / f".index.{os.getpid()}"
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)
    save_settings(context.settings, folder)
    digest = hashlib.sha256(page.encode()).hexdigest()
    return StageResult(rows_in=len(runs), rows_out=1, outputs={"reports/index.html": digest})


def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)


def _metrics(workspace: Workspace, run_id: str) -> list[dict[str, Any]]:
    """One table a cut: its names and one row a method."""
    rows = [row for row in read_rows(workspace.table("evaluations")) if row["run_id"] == run_id]
    tables = []
    for cut in ("test", "validation"):
        found = [row for row in rows if row["cut"] == cut]
        names = list(dict.fromkeys(row["metric"] for row in found))
        lines = []
        for method, label in METHODS.items():
            values = {row["metric"]: row["value"] for row in found if row["method"] == method}
            if values:
                lines.append({"label": label, "values": [values.get(name) for name in names]})
        best = [max((line["values"][i] or 0.0) for line in lines) for i in range(len(names))] if lines else []
        if found:
            tables.append(
                {
                    "cut": cut,
                    "names": names,
                    "lines": lines,
                    "best": best,
                    "users": found[0]["users"],
                    "catalogue": found[0]["catalogue"],
                }
            )
    return tables


def _manifest(workspace: Workspace, model: str | None) -> dict[str, Any] | None:
    if model is None:
        return None
    text = (workspace.root / "models" / model / "manifest.json").read_text(encoding="utf-8")
    return {"model_id": model, **json.loads(text)}


def _curve(workspace: Workspace, model: str | None) -> Sequence[Curve]:
    if model is None:
        return []
    points = read_curve(workspace.root / "models" / model)
    epochs = [point["epoch"] for point in points]
    return [
        draw("Training loss", epochs, [point["loss"] for point in points]),
        draw("NDCG@10 on validation", epochs, [point["validation NDCG@10"] for point in points]),
    ]


def _release(workspace: Workspace) -> dict[str, Any] | None:
    rows = sorted(read_rows(workspace.table("releases")), key=lambda row: row["sequence"])
    judged = [row for row in rows if row["gate_results"]]
    if not judged:
        return None
    return {**judged[-1], "rules": json.loads(judged[-1]["gate_results"])}
