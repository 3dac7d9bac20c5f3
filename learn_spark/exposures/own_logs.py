"""Exposures from own logs, described in the settings as an experiment's are."""

from __future__ import annotations

from pathlib import Path

from learn_spark.errors import LearnSparkError
from learn_spark.exposures.gathered import Gathered, write_exposures
from learn_spark.exposures.period import in_period
from learn_spark.pipeline.stage import StageContext
from learn_spark.quality.quarantine import quarantine
from learn_spark.sources.broken_files import first_broken
from learn_spark.sources.exposure_log import log_files, once, read_logs
from learn_spark.tables.contracts import contract
from learn_spark.tables.observed import observed


def gather(context: StageContext, folder: Path, place: Path) -> Gathered:
    """Every row typed and judged by the row rules of exposures; refused ones go to quarantine with their reasons.

    An event_id counts once (``once``). Nothing is written before all files were read to their end; what is staged goes
    to ``place``. Raises UnreadableFile for a file that cannot be read, SettingsError as ``read_logs``.
    """
    from pyspark.sql import Observation
    from pyspark.sql import functions as F

    settings, names = context.settings.exposures, contract("exposures").names
    seen = Observation()
    judged = read_logs(context.spark, folder, settings.logs, {}, section="exposures.logs")
    judged = judged.observe(seen, F.count(F.lit(1)).alias("rows"), F.count_if(F.size("reasons") > 0).alias("refused"))
    path = f"file:{place / 'staged'}"
    try:
        judged.write.mode("overwrite").parquet(path)
    except Exception as error:
        if broken := first_broken([file for files in log_files(folder, settings.logs) for file in files]):
            raise broken from error
        raise
    counted = observed(seen, context.spark) or {"rows": 0, "refused": 0}
    if not counted["rows"]:
        raise LearnSparkError(f"exposures: the logs in {folder} have no row; exposures.logs names their files")
    staged = context.spark.read.schema(judged.schema).parquet(path)
    good = once(staged.where(F.size("reasons") == 0).select(*names))
    outside = good.where(~in_period(settings)).count()
    written = write_exposures(context, good.where(in_period(settings)))
    if counted["refused"]:
        refused = staged.where(F.size("reasons") > 0).withColumn("parsed", F.lit(None).cast("string"))
        quarantine(refused, context.path("quarantine"), source_table="exposures", run_id=context.run_id)
    return Gathered(
        counted["rows"],
        written,
        refused=counted["refused"],
        duplicates=counted["rows"] - counted["refused"] - outside - written,
        outside=outside,
        measures={"exposures_refused_share": counted["refused"] / counted["rows"]},
    )
