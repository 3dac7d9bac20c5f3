"""The runs table: what every run read and wrote, and which run a table's state comes from."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import append_rows, read_rows
from learn_spark.core.tables.workspace import Workspace


@dataclass(frozen=True)
class Run:
    """One row of the runs table; see schemas/runs.yaml for the meaning of each field."""

    run_id: str
    job: str
    status: str
    config_hash: str
    code_version: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    counts: Mapping[str, int]
    seconds: float
    started_at: datetime
    message: str | None = None


def new_run_id(now: datetime | None = None) -> str:
    """A run id that sorts by start time."""
    moment = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%S")
    return f"{moment}-{secrets.token_hex(4)}"


def record(workspace: Workspace, run: Run) -> None:
    """Append the run."""
    row = {name: getattr(run, name) for name in contract("runs").names}
    append_rows(workspace.table("runs"), contract("runs"), [row])


def all_runs(workspace: Workspace) -> list[Run]:
    """Every run that ended, oldest first."""
    rows = read_rows(workspace.table("runs"))
    return [Run(**row) for row in sorted(rows, key=lambda row: (row["started_at"], row["run_id"]))]


def last_done(workspace: Workspace, job: str) -> Run | None:
    """The newest run of ``job`` that ended well."""
    return next((run for run in reversed(all_runs(workspace)) if run.job == job and run.status == "done"), None)


def newest_model(workspace: Workspace) -> str:
    """Id of the newest of ``trained_models``; LearnSparkError where there is none."""
    models = trained_models(workspace)
    if not models:
        raise LearnSparkError("there is no trained model yet; run the train stage first")
    return models[0]


def trained_models(workspace: Workspace) -> list[str]:
    """Ids of the models that train runs wrote, newest first, but for the trials of searches and those that are gone."""
    found = [
        name.removeprefix("models/")
        for run in reversed(all_runs(workspace))
        if run.job == "train" and run.status == "done"
        for name in run.outputs
        if name.startswith("models/")
    ]
    return [model for model in found if _is_whole_and_no_trial(workspace.root / "models" / model / "manifest.json")]


def _is_whole_and_no_trial(manifest: Path) -> bool:
    return manifest.is_file() and not json.loads(manifest.read_text(encoding="utf-8")).get("trial", False)
