"""``learn-spark ab-report``: from logs of exposures or outcomes to a checked, corrected comparison and its page."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from learn_spark.ads.experiments.aa import false_alarms
from learn_spark.ads.experiments.checks import checks_of
from learn_spark.ads.experiments.comparisons import compare, resample
from learn_spark.ads.experiments.moments import SUMS
from learn_spark.ads.experiments.result import Check, Comparison, FalseAlarms, Report
from learn_spark.ads.experiments.rows import Rows, prepare
from learn_spark.ads.experiments.slices import UserTable
from learn_spark.ads.experiments.users import Users, make_users
from learn_spark.core.console import Reporter
from learn_spark.core.errors import GateError, LearnSparkError, SettingsError
from learn_spark.core.settings import load_experiment
from learn_spark.core.settings.experiment import Cohort, Experiment
from learn_spark.core.tables.lineage import code_version, new_run_id
from learn_spark.core.tables.session import start_session
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.sources.exposure_log import log_files

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

OF_REVENUE = ("revenue_per_user", "revenue_per_exposure")
_SUFFIXES = {".parquet": "parquet", ".csv": "csv", ".gz": "csv", ".jsonl": "json-lines"}


def settings_of(named: str, overrides: Sequence[str]) -> Experiment:
    """The experiment that a YAML file describes, or the plain one over a log in the columns of exposures.

    Raises SettingsError for what is neither.
    """
    path = Path(named)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise SettingsError(f"ab-report: there is no settings file {named}")
        return load_experiment(path, overrides)
    if not path.exists():
        raise SettingsError(
            f"ab-report: there is no {named}; name a log (a Delta table, a folder of Parquet or CSV files, one file), "
            "or a YAML file that describes the experiment"
        )
    resolved = path.resolve()
    tree = {
        "name": resolved.name.partition(".")[0],
        "path": str(resolved.parent),
        "logs": [_log_at(resolved)],
    }
    return load_experiment(tree, overrides)


def _log_at(path: Path) -> dict[str, str]:
    if not path.is_dir():
        return {"files": path.name, "format": _format_of(path)}
    if (path / "_delta_log").is_dir():
        return {"files": path.name, "format": "delta"}
    for suffix, pattern in ((".parquet", "**/*.parquet"), (".csv", "**/*.csv*"), (".jsonl", "**/*.jsonl*")):
        if any(path.glob(pattern)):
            return {"files": f"{path.name}/{pattern}", "format": _SUFFIXES[suffix]}
    raise SettingsError(
        f"ab-report: the folder {path} holds no Delta table and no Parquet, CSV or JSON lines (.jsonl) files"
    )


def _format_of(path: Path) -> str:
    inner = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if inner not in _SUFFIXES:
        raise SettingsError(
            f"ab-report: {path.name} tells by its name no format (.parquet, .csv, .csv.gz, .jsonl); describe it in "
            "a YAML file"
        )
    return _SUFFIXES[inner]


def show_plan(settings: Experiment, console: Reporter) -> None:
    """What would be read and written; nothing is."""
    folder = Path(settings.path)
    for log, files in zip(settings.logs, log_files(folder, settings.logs), strict=True):
        size = sum(file.path.stat().st_size for file in files)
        console.line(f"would read   {len(files):,} of {log.files} in {folder} ({log.format}, {size / 1e6:,.1f} MB)")
    reports = Path(settings.workspace).expanduser().resolve() / "reports"
    console.line(f"would write  {reports / settings.name}.html and .json")


def run(settings: Experiment, console: Reporter, *, verbose: bool = False, spark: SparkSession | None = None) -> Report:
    """Read the logs, check them, and compare the arms.

    The logs are not changed. A failed check does not raise: see ``Report.failed`` and ``require_sound``.
    Raises LearnSparkError where there is nothing to compare: no arm, one arm alone, an unknown control.
    """
    begun = time.monotonic()
    workspace = Workspace.open(settings.workspace)
    folder, reports = Path(settings.path).expanduser(), workspace.folder("reports")
    files = [(file.name, file.state) for found in log_files(folder, settings.logs) for file in found]
    run_id = new_run_id()
    place = workspace.folder("staging", run_id)
    ours = spark is None
    try:
        if spark is None:
            log = None if verbose else workspace.folder("logs") / "spark.log"
            spark = start_session(settings.spark, app="learn-spark ab-report", log_file=log)
        rows = prepare(spark, settings, folder, place, reports)
        console.say(
            f"{rows.read:,} rows: {rows.kept:,} kept, {rows.refused_rows:,} refused, {rows.repeated:,} repeated "
            f"({rows.read / (time.monotonic() - begun):,.0f} rows/s)"
        )
        users = make_users(rows.frame, settings, place)
        console.say(f"{users.users:,} users in the experiment ({time.monotonic() - begun:,.0f} s)")
        found = analyse(settings, rows, users, files, run_id, begun)
    finally:
        shutil.rmtree(place, ignore_errors=True)
        if ours and spark is not None:
            spark.stop()
    return found


def require_sound(found: Report, page: Path) -> None:
    """Raise GateError where a check or the logs' gate failed; ``page`` is the report that shows them."""
    failed = [f"{check.name}: {check.observed} ({check.meaning})" for check in found.failed]
    if failed:
        raise GateError(
            f"ab-report: the results of {found.name} are not valid: {'; '.join(failed)}. See the report: {page}"
        )


def analyse(
    settings: Experiment, rows: Rows, users: Users, files: list[tuple[str, str]], run_id: str, begun: float
) -> Report:
    """The report from the rows as counted and the table of users; LearnSparkError as ``run``."""
    table = UserTable(users.path, users.user_cohorts, users.exposure_groups)
    by_arm = table.users_by_arm()
    metrics = [name for name in settings.metrics if users.revenue_known or name not in OF_REVENUE]
    if not metrics or (settings.primary is not None and settings.primary not in metrics):
        raise LearnSparkError("ab-report: no row says what it earned, and metrics or primary ask for revenue alone")
    primary = settings.primary or metrics[0]
    notes = _notes(settings, rows, users, metrics)
    checks = [_of_gate(rows)]
    alarms: list[FalseAlarms] = []
    whole: list[Comparison] = []
    cohorts: list[Comparison] = []
    skipped: list[tuple[str, str, str]] = []
    shares: Mapping[str, float] = {}
    if settings.aa_splits:
        arm = settings.control if by_arm else None
        if arm is not None and arm not in by_arm:
            raise _unknown_control(settings, by_arm)
        with_history = _with_history(table, arm, settings)
        alarms = false_alarms(
            table,
            arm,
            settings.aa_splits,
            metrics=metrics,
            alpha=settings.alpha,
            seed=settings.seed,
            with_history=with_history,
        )
        checks += [_of_alarms(one, settings) for one in alarms]
    else:
        shares = _shares(settings, by_arm)
        treatments = [name for name in shares if name != settings.control]
        moments = table.moments(list(shares))
        with_history = _with_history(table, None, settings)
        checks += checks_of(moments, users, shares, settings, with_history=with_history)
        resamples = resample(table, list(shares), settings.bootstrap_samples, settings.seed)
        whole, cohorts, skipped = compare(
            moments,
            resamples,
            treatments=treatments,
            metrics=metrics,
            primary=primary,
            settings=settings,
            with_history=with_history,
        )
        if not whole:
            raise LearnSparkError(
                f"ab-report: too few users to compare: {', '.join(f'{n:,} in {arm}' for arm, n in by_arm.items())}; "
                f"min_users is {settings.min_users:,}"
            )
    if not with_history:
        notes.append(
            "No variance reduction: "
            + ("cuped is off." if not settings.cuped else "no user has an exposure before the start.")
        )
    return Report(
        name=settings.name,
        control=settings.control,
        users=by_arm or {"all": users.users},
        shares=shares,
        period=users.period.told,
        rows={
            "read": rows.read,
            "refused": rows.refused_rows,
            "repeated": rows.repeated,
            "in the experiment": users.rows_in_period,
            "before it": users.rows_before,
            "outside both": users.rows_outside,
        },
        refused=rows.refused,
        checks=tuple(checks),
        primary=primary,
        whole=tuple(whole),
        cohorts=tuple(cohorts),
        false_alarms=tuple(alarms),
        skipped=tuple(skipped),
        notes=tuple(notes),
        cohort_titles={name: _title(name, cohort) for name, cohort in settings.cohorts.items()},
        settings=settings.model_dump(exclude={"spark"}),
        files=tuple(files),
        seconds=time.monotonic() - begun,
        run_id=run_id,
        code_version=code_version(),
    )


def _shares(settings: Experiment, by_arm: Mapping[str, int]) -> dict[str, float]:
    """The arms with their shares, the control first."""
    if not by_arm:
        raise LearnSparkError("ab-report: no user has an arm; set logs.columns.arm, or assignment with shares")
    if settings.control not in by_arm and settings.control not in settings.shares:
        raise _unknown_control(settings, by_arm)
    if len(by_arm) < 2:
        (only,) = by_arm
        raise LearnSparkError(
            f"ab-report: all {by_arm[only]:,} users are in one arm, {only}; there is nothing to compare it with "
            "(aa_splits would test the analysis itself on it)"
        )
    named = settings.shares or dict.fromkeys(sorted(by_arm), 1.0)
    if strange := sorted(set(by_arm) - set(named)):
        raise LearnSparkError(f"ab-report: the logs have the arms {', '.join(strange)}, which shares does not name")
    return {settings.control: named[settings.control], **named}


def _unknown_control(settings: Experiment, by_arm: Mapping[str, int]) -> LearnSparkError:
    return LearnSparkError(
        f"ab-report: no user is in the control {settings.control!r}; set control to one of the logs' arms: "
        f"{', '.join(sorted(by_arm))}"
    )


def _with_history(table: UserTable, arm: str | None, settings: Experiment) -> bool:
    if not settings.cuped:
        return False
    return any(
        (batch.sums[batch.arms == arm if arm is not None else slice(None), 0, len(SUMS)] > 0).any()
        for batch in table.batches()
    )


def _of_gate(rows: Rows) -> Check:
    broken = [*rows.gate.broken("fail"), *rows.gate.broken("warn")]
    return Check(
        "the logs' gate",
        "failed" if not rows.gate.passed else "warning" if broken else "passed",
        "; ".join(result.sentence() for result in broken) or f"{len(rows.gate.results)} rules passed",
        "the rules of exposures (schemas/exposures.yaml)",
    )


def _notes(settings: Experiment, rows: Rows, users: Users, metrics: Sequence[str]) -> list[str]:
    found = []
    if len(metrics) < len(settings.metrics):
        found.append("No row of the experiment says what it earned: the metrics of revenue are left out.")
    if users.rows_without_arm:
        found.append(
            f"{users.rows_without_arm:,} rows of the period have no arm; they count for users who are in an arm by "
            "another row or by the assignment, and for nobody else."
        )
    found += [
        f"{count:,} users change their group of {name}; each is in that of the first exposure in the experiment."
        for name, count in users.changing.items()
        if count
    ]
    if rows.refused_at is not None:
        found.append(f"The {rows.refused_rows:,} refused rows lie in {rows.refused_at} with their reasons.")
    return found


def _of_alarms(found: FalseAlarms, settings: Experiment) -> Check:
    """Within 3.3 standard deviations (p = 0.001) of what alpha promises: the halvings are of the same users, all the
    same independent ones.
    """
    used = found.plain if found.reduced is None else found.reduced
    expected = settings.alpha * found.splits
    reach = 3.3 * (settings.alpha * (1 - settings.alpha) * found.splits) ** 0.5 + 1
    return Check(
        f"false alarms in {found.metric.replace('_', ' ')}",
        "passed" if abs(used - expected) <= reach else "failed",
        f"{used:,} of {found.splits:,} splits, {used / found.splits:.1%}",
        f"halvings that found a difference at {settings.alpha:g}; {expected:,.0f} expected, {reach:,.0f} more or less",
    )


def _title(name: str, cohort: Cohort) -> str:
    if cohort.history is None:
        of = "users, by their first exposure" if cohort.of == "user" else "exposures"
        return f"{name}: {of} ({cohort.by})"
    cold, long_tail = cohort.thresholds
    return (
        f"{name}: {cohort.history}s by exposures before the start: cold below {cold:,}, long-tail below {long_tail:,}, "
        "other from there on"
    )
