"""``learn-spark ab-report``: from logs of exposures or outcomes to a checked, corrected comparison of the arms."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

from learn_spark.ads.experiments.analysis import analyse
from learn_spark.ads.experiments.result import ExperimentResult
from learn_spark.ads.experiments.rows import prepare
from learn_spark.ads.experiments.users import make_users
from learn_spark.core.console import Reporter
from learn_spark.core.errors import GateError
from learn_spark.core.settings.experiment import ExperimentSettings
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.runs import new_run_id
from learn_spark.core.tables.session import start_session
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.sources.exposure_log import log_files
from learn_spark.data.sources.location import source_folder

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def run(
    settings: ExperimentSettings, console: Reporter, *, verbose: bool = False, spark: SparkSession | None = None
) -> ExperimentResult:
    """Read the logs, check them, and compare the arms. The logs are not changed.

    A failed check does not raise: see ``ExperimentResult.failed`` and ``require_sound``. Raises LearnSparkError if
    nothing can be compared: there is no arm or only one, or no user is in the control.
    """
    started = time.monotonic()
    workspace = Workspace.open(settings.workspace)
    folder, reports = source_folder(settings.path, settings.storage.s3()), workspace.folder("reports")
    files = [(file.name, file.state) for of_log in log_files(folder, settings.logs) for file in of_log]
    run_id = new_run_id()
    scratch = workspace.folder("staging", run_id)
    starts_session = spark is None
    try:
        if spark is None:
            log = None if verbose else workspace.folder("logs") / "spark.log"
            addresses = [] if folder.is_local else [folder]
            spark = start_session(settings.spark, app="learn-spark ab-report", log_file=log, addresses=addresses)
        rows = prepare(spark, settings, folder, scratch, reports, console.say)
        console.say(
            f"{rows.read:,} rows: {rows.kept:,} kept, {rows.refused_rows:,} refused, {rows.repeated:,} repeated "
            f"({rows.read / (time.monotonic() - started):,.0f} rows/s)"
        )
        users = make_users(rows.frame, settings, scratch)
        console.say(f"{users.users:,} users in the experiment ({time.monotonic() - started:,.0f} s)")
        return analyse(settings, rows, users, files, run_id, started)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if starts_session and spark is not None:
            spark.stop()


def require_sound(result: ExperimentResult, page: StoragePath) -> None:
    """Raise GateError if a check or the logs' quality gate failed; ``page`` is the report that shows them."""
    failed = [f"{check.name}: {check.observed} ({check.meaning})" for check in result.failed]
    if failed:
        raise GateError(
            f"ab-report: the results of {result.name} are not valid: {'; '.join(failed)}. See the report: {page}"
        )
