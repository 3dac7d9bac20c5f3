"""Exposures from logs of the user's own, described in the settings as an experiment's are."""

from __future__ import annotations

from learn_spark.ads.exposures.landing import landed
from learn_spark.ads.exposures.period import in_period
from learn_spark.ads.exposures.result import ExposuresResult, without_erased, write_exposures
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.quality.quarantine import quarantine
from learn_spark.core.quality.reasons import ReasonCount, flaw_notes, refusal_notes
from learn_spark.core.settings.ads import LogExposuresSettings
from learn_spark.core.stages.context import StageContext
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.erased import ErasedUsers
from learn_spark.core.tables.observed import observed
from learn_spark.data.sources.corrupt_files import naming_corrupt_files
from learn_spark.data.sources.exposure_log import log_files, once, read_logs, rows_by_reason
from learn_spark.data.sources.source import UnreadableFileError


def make_exposures(
    context: StageContext, settings: LogExposuresSettings, folder: StoragePath, scratch: StoragePath
) -> ExposuresResult:
    """Write the rows that pass the row rules of exposures; refused rows go to quarantine with their reasons.

    Of several rows with one event_id one is kept (``once``). Nothing is written before all files were read to their
    end; temporary files go to ``scratch``. With ``unreadable: skip`` a file that cannot be read is left out and named.

    Raises SettingsError as ``read_logs``, LearnSparkError if there is no row at all, and UnreadableFileError.
    """
    from pyspark.sql import Observation
    from pyspark.sql import functions as F

    names = contract("exposures").names
    files = [file for of_log in log_files(folder, settings.logs, lambda: context.spark) for file in of_log]
    errors: dict[str, str] = {}
    while True:
        # An observation counts one run of a query.
        observation = Observation()
        try:
            with naming_corrupt_files([file for file in files if file.name not in errors]):
                checked = read_logs(
                    context.spark,
                    folder,
                    settings.logs,
                    {},
                    section="exposures.logs",
                    without=errors,
                    say=context.console.say,
                )
                checked = checked.observe(
                    observation,
                    F.count(F.lit(1)).alias("rows"),
                    F.count_if(F.size("reasons") > 0).alias("refused"),
                    F.count_if(F.size("flaws") > 0).alias("flawed"),
                )
                rows = landed(checked, scratch / "rows")
            break
        except UnreadableFileError as error:
            if settings.unreadable == "stop" or error.name in errors:
                raise
            errors[error.name] = error.why
    counted = observed(observation, context.spark) or {"rows": 0, "refused": 0, "flawed": 0}
    if not counted["rows"]:
        raise LearnSparkError(f"exposures: the logs in {folder} have no row; check exposures.path and exposures.logs")
    reasons: tuple[ReasonCount, ...] = ()
    flaws: tuple[ReasonCount, ...] = ()
    if counted["refused"] or counted["flawed"]:
        reasons, flaws = rows_by_reason(rows, counted["rows"], settings.logs, "exposures.logs")
    good, erased = without_erased(context, once(rows.where(F.size("reasons") == 0).select(*names)))
    outside = good.where(~in_period(settings)).count()
    written = write_exposures(context, good.where(in_period(settings)))
    if counted["refused"]:
        refused = rows.where(F.size("reasons") > 0).withColumn("parsed", F.lit(None).cast("string"))
        if (users := ErasedUsers.of(context.workspace)) is not None:
            refused = users.without_mentions(refused)
        quarantine(refused, context.path("quarantine"), source_table="exposures", run_id=context.run_id)
    return ExposuresResult(
        counted["rows"],
        written,
        refused=counted["refused"],
        duplicates=counted["rows"] - counted["refused"] - erased - outside - written,
        outside=outside,
        erased=erased,
        nulled=sum(flaw.rows for flaw in flaws),
        files_skipped=len(errors),
        notes=(
            *(f"skipped, because exposures.unreadable is skip: {name}: {why}" for name, why in errors.items()),
            *refusal_notes("exposures", counted["rows"], counted["refused"], reasons),
            *flaw_notes("exposures", flaws),
        ),
        measures={"exposures_refused_share": counted["refused"] / counted["rows"]},
    )
