"""From logs to counted rows: written once, refused rows separated, each exposure once, table rules evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.quality.gate import GateReport, Rule, evaluate_rules
from learn_spark.core.quality.profile import profile
from learn_spark.core.quality.reasons import ReasonCount
from learn_spark.core.quality.table_gate import check_rule_names, rules_of
from learn_spark.core.settings.experiment import ExperimentSettings
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.observed import observed
from learn_spark.data.sources.corrupt_files import naming_corrupt_files
from learn_spark.data.sources.exposure_log import log_files, once, read_logs, rows_by_reason

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

KEPT = ("event_id", "user_id", "item_id", "event_time", "arm", "converted", "revenue", "weight")


@dataclass(frozen=True)
class Rows:
    """The exposures of a report in ``frame`` (KEPT and ``cohort_<name>``), each event_id once.

    read = refused + repeated + kept. ``refused`` counts the rows of each reason (a row may have several),
    ``refused_rows`` each row once; the rows themselves are in the folder ``refused_at``, if there are any. ``nulled``
    counts the good rows of which an optional field could not be read and became null, by reason.
    """

    frame: DataFrame
    read: int
    kept: int
    repeated: int
    refused_rows: int
    refused: Mapping[str, int]
    refused_at: Path | None
    nulled: Mapping[str, int]
    gate: GateReport


def prepare(
    spark: SparkSession,
    settings: ExperimentSettings,
    folder: StoragePath,
    scratch: Path,
    reports: Path,
    say: Callable[[str], None] = lambda text: None,
) -> Rows:
    """Read, type and check the logs below ``folder``; temporary files go to ``scratch``, refused rows to ``reports``.

    Of several rows with one event_id one is kept (``once``). Raises LearnSparkError if no row is left, and as
    ``read_logs``, which gets ``say``. A file that cannot be read is never left out: its arms would lack rows.
    """
    from pyspark.sql import Observation
    from pyspark.sql import functions as F

    check_rule_names(settings.quality)
    cohorts = {name: cohort.by for name, cohort in settings.cohorts.items() if cohort.by is not None}
    columns = [*KEPT, *(f"cohort_{name}" for name in cohorts)]
    observation = Observation()
    landed_at = f"file:{scratch / 'landed'}"
    with naming_corrupt_files([file for of_log in log_files(folder, settings.logs) for file in of_log]):
        checked = read_logs(spark, folder, settings.logs, cohorts, say=say)
        checked = checked.observe(
            observation,
            F.count(F.lit(1)).alias("rows"),
            F.count_if(F.size("reasons") > 0).alias("refused"),
            F.count_if(F.size("flaws") > 0).alias("flawed"),
        )
        checked = checked.select(*columns, "reasons", "flaws", "raw", "wrong_time", "source_file")
        checked.write.mode("overwrite").parquet(landed_at)
    counted = observed(observation, spark) or {"rows": 0, "refused": 0, "flawed": 0}
    landed = spark.read.parquet(landed_at)
    bad = landed.where(F.size("reasons") > 0)
    by_reason: tuple[ReasonCount, ...] = ()
    by_flaw: tuple[ReasonCount, ...] = ()
    refused_at = None
    if counted["refused"] or counted["flawed"]:
        by_reason, by_flaw = rows_by_reason(landed, counted["rows"], settings.logs, "logs")
    reasons = {one.reason: one.rows for one in by_reason}
    if counted["refused"]:
        refused_at = reports / f"{settings.name}.refused"
        bad.select("reasons", "raw").write.mode("overwrite").json(f"file:{refused_at}")
    once(landed.where(F.size("reasons") == 0).select(*columns)).write.mode("overwrite").parquet(
        f"file:{scratch / 'rows'}"
    )
    frame = spark.read.parquet(f"file:{scratch / 'rows'}")
    kept = frame.count()
    if not kept:
        listed = "; ".join(f"{count:,} {reason}" for reason, count in reasons.items())
        raise LearnSparkError(
            f"ab-report: none of the {counted['rows']:,} rows of the logs is usable ({listed or 'they are empty'})"
        )
    gate = _gate(frame, settings, counted["refused"] / counted["rows"], reports)
    repeated = counted["rows"] - counted["refused"] - kept
    nulled = {one.reason: one.rows for one in by_flaw}
    return Rows(frame, counted["rows"], kept, repeated, counted["refused"], reasons, refused_at, nulled, gate)


def _gate(frame: DataFrame, settings: ExperimentSettings, refused_share: float, reports: Path) -> GateReport:
    """The table rules of exposures, but for the one on repeats, which were counted and dropped before."""
    rules = [rule for rule in rules_of("exposures", settings.quality) if rule.repeats_of is None]
    measured = profile(frame, rules, lambda name: frame)
    measures = {**measured, **{rule.name: refused_share for rule in rules if rule.given is not None}}
    kept = [Rule(r.name, r.least, r.most, r.meaning, r.severity) for r in rules if r.name in measures]
    gate = evaluate_rules("exposures", measures, kept, reports / "quality", title=f"exposures of {settings.name}")
    gate.write_docs()
    return gate
