"""From logs to counted rows: staged once, refused ones kept apart, each exposure once, and the table rules judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.quality.gate import GateReport, Rule, evaluate_rules
from learn_spark.core.quality.profile import profile
from learn_spark.core.quality.table_gate import check_rule_names, rules_of
from learn_spark.core.settings.experiment import Experiment
from learn_spark.core.tables.observed import observed
from learn_spark.data.sources.exposure_log import once, read_logs

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

KEPT = ("event_id", "user_id", "item_id", "event_time", "arm", "converted", "revenue", "weight")


@dataclass(frozen=True)
class Rows:
    """The exposures of a report in ``frame`` (KEPT and ``cohort_<name>``), each event_id once.

    read = refused + repeated + kept. ``refused`` tells the rows of each reason (a row may have several), all of them
    together in ``refused_rows``; the rows themselves lie in ``refused_at`` where there are any.
    """

    frame: DataFrame
    read: int
    kept: int
    repeated: int
    refused_rows: int
    refused: Mapping[str, int]
    refused_at: Path | None
    gate: GateReport


def prepare(spark: SparkSession, settings: Experiment, folder: Path, place: Path, reports: Path) -> Rows:
    """Read, type and judge the logs below ``folder``; what is staged goes to ``place``, for the report's time alone.

    Of several rows with one event_id one counts (``once``). Raises LearnSparkError where no row is left, and as
    ``read_logs``.
    """
    from pyspark.sql import Observation
    from pyspark.sql import functions as F

    check_rule_names(settings.quality)
    cohorts = {name: cohort.by for name, cohort in settings.cohorts.items() if cohort.by is not None}
    columns = [*KEPT, *(f"cohort_{name}" for name in cohorts)]
    seen = Observation()
    judged = read_logs(spark, folder, settings.logs, cohorts)
    judged = judged.observe(seen, F.count(F.lit(1)).alias("rows"), F.count_if(F.size("reasons") > 0).alias("refused"))
    staged_at = f"file:{place / 'staged'}"
    judged.select(*columns, "reasons", "raw").write.mode("overwrite").parquet(staged_at)
    counted = observed(seen, spark) or {"rows": 0, "refused": 0}
    staged = spark.read.parquet(staged_at)
    bad = staged.where(F.size("reasons") > 0)
    reasons, refused_at = {}, None
    if counted["refused"]:
        reasons = {row[0]: row[1] for row in bad.select(F.explode("reasons")).groupBy("col").count().collect()}
        refused_at = reports / f"{settings.name}.refused"
        bad.select("reasons", "raw").write.mode("overwrite").json(f"file:{refused_at}")
    once(staged.where(F.size("reasons") == 0).select(*columns)).write.mode("overwrite").parquet(
        f"file:{place / 'rows'}"
    )
    frame = spark.read.parquet(f"file:{place / 'rows'}")
    kept = frame.count()
    if not kept:
        told = "; ".join(f"{count:,} {reason}" for reason, count in reasons.items())
        raise LearnSparkError(
            f"ab-report: none of the {counted['rows']:,} rows of the logs is usable ({told or 'they are empty'})"
        )
    gate = _gate(frame, settings, counted["refused"] / counted["rows"], reports)
    repeated = counted["rows"] - counted["refused"] - kept
    return Rows(frame, counted["rows"], kept, repeated, counted["refused"], reasons, refused_at, gate)


def _gate(frame: DataFrame, settings: Experiment, refused_share: float, reports: Path) -> GateReport:
    """The table rules of exposures; repeats are dropped and counted before, so that rule needs no second look."""
    rules = [rule for rule in rules_of("exposures", settings.quality) if rule.repeats_of is None]
    measured = profile(frame, rules, lambda name: frame)
    known = {**measured, **{rule.name: refused_share for rule in rules if rule.given is not None}}
    judged = [Rule(r.name, r.least, r.most, r.meaning, r.severity) for r in rules if r.name in known]
    gate = evaluate_rules("exposures", known, judged, reports / "quality", title=f"exposures of {settings.name}")
    gate.write_docs()
    return gate
