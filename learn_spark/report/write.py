"""The report stage, and the page of one run: a single HTML file that needs no network and no script."""

from __future__ import annotations

import hashlib
import re

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings import save_settings
from learn_spark.core.stages.context import StageContext
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.workspace import Workspace
from learn_spark.report.other_inputs import newest_runs
from learn_spark.report.page import render

NEWEST = "index.html"


def run(context: StageContext) -> StageResult:
    """Write reports/index.html about the newest finished run of every stage, and a copy as reports/<this run>.html."""
    runs = newest_runs(context.workspace)
    page = render(context.workspace)
    for name in (f"{context.run_id}.html", NEWEST):
        (context.workspace.place / "reports" / name).write_text(page)
    save_settings(context.settings, context.workspace.place / "reports")
    digest = hashlib.sha256(page.encode()).hexdigest()
    return StageResult(rows_in=len(runs), rows_out=1, outputs={f"reports/{NEWEST}": digest})


def write_page(workspace: Workspace, run_id: str) -> StoragePath:
    """Write reports/<run_id>.html about one run and the runs connected to it; the path.

    Raises LearnSparkError if there is no run of this id.
    """
    if not re.fullmatch(r"[\w-]+", run_id):
        raise LearnSparkError(
            f"report: {run_id!r} is not a run id such as 20240131T120000-0a1b2c3d; learn-spark status lists the run ids"
        )
    page = workspace.place / "reports" / f"{run_id}.html"
    page.write_text(render(workspace, run_id))
    return page
