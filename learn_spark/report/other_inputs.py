"""What report reads beside tables, without the imports of the stage."""

from __future__ import annotations

import hashlib

from learn_spark.core.settings.schema import Settings
from learn_spark.core.stages.registry import all_stages
from learn_spark.core.tables.runs import Run, all_runs
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.report.front.experiment_files import experiment_files


def other_inputs(settings: Settings, workspace: Workspace) -> dict[str, str]:
    """The newest finished run of every other stage; the ledger of releases, which commands change too; experiments."""
    inputs = {f"run:{run.job}": run.run_id for run in newest_runs(workspace)}
    ledger = current_version(workspace.table("releases"))
    if ledger is not None:
        inputs["releases"] = str(ledger)
    results = [f"{file.path.name} {file.size} {file.changed_ns}" for file in experiment_files(workspace)]
    if results:
        inputs["experiments"] = hashlib.sha256("\n".join(results).encode()).hexdigest()
    return inputs


def newest_runs(workspace: Workspace) -> list[Run]:
    """The newest finished run of every stage but report, in the order of the stages."""
    done = {run.job: run for run in all_runs(workspace) if run.status == "done" and run.job != "report"}
    return [done[stage.name] for stage in all_stages() if stage.name in done]
