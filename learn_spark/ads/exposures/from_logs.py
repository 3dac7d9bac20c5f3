"""Exposures from logs of the user's own, described in the settings as an experiment's are."""

from __future__ import annotations

from pathlib import Path

from learn_spark.ads.exposures.landing import landed
from learn_spark.ads.exposures.period import in_period
from learn_spark.ads.exposures.result import ExposuresResult, write_exposures
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.quality.quarantine import quarantine
from learn_spark.core.quality.reasons import refusal_notes
from learn_spark.core.settings.ads import LogExposuresSettings
from learn_spark.core.stages.context import StageContext
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.observed import observed
from learn_spark.data.sources.exposure_log import once, read_logs, refused_by_reason


def make_exposures(
    context: StageContext, settings: LogExposuresSettings, folder: Path, scratch: Path
) -> ExposuresResult:
    """Write the rows that pass the row rules of exposures; refused rows go to quarantine with their reasons.

    Of several rows with one event_id one is kept (``once``). Nothing is written before all files were read to their
    end; temporary files go to ``scratch``.

    Raises SettingsError as ``read_logs``, and LearnSparkError if there is no row at all.
    """
    from pyspark.sql import Observation
    from pyspark.sql import functions as F

    names = contract("exposures").names
    observation = Observation()
    checked = read_logs(context.spark, folder, settings.logs, {}, section="exposures.logs")
    checked = checked.observe(
        observation, F.count(F.lit(1)).alias("rows"), F.count_if(F.size("reasons") > 0).alias("refused")
    )
    rows = landed(checked, scratch / "rows")
    counted = observed(observation, context.spark) or {"rows": 0, "refused": 0}
    if not counted["rows"]:
        raise LearnSparkError(f"exposures: the logs in {folder} have no row; check exposures.path and exposures.logs")
    reasons = refused_by_reason(rows, counted["rows"], settings.logs, "exposures.logs") if counted["refused"] else ()
    for line in refusal_notes("exposures", counted["rows"], counted["refused"], reasons):
        context.console.say(line)
    good = once(rows.where(F.size("reasons") == 0).select(*names))
    outside = good.where(~in_period(settings)).count()
    written = write_exposures(context, good.where(in_period(settings)))
    if counted["refused"]:
        refused = rows.where(F.size("reasons") > 0).withColumn("parsed", F.lit(None).cast("string"))
        quarantine(refused, context.path("quarantine"), source_table="exposures", run_id=context.run_id)
    return ExposuresResult(
        counted["rows"],
        written,
        refused=counted["refused"],
        duplicates=counted["rows"] - counted["refused"] - outside - written,
        outside=outside,
        measures={"exposures_refused_share": counted["refused"] / counted["rows"]},
    )
