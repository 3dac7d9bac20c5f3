"""The analysis of an experiment from counted rows and the table of users: comparisons, or A/A, with their checks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from learn_spark.ads.experiments.aa import false_alarms
from learn_spark.ads.experiments.checks import check_of_false_alarms, check_of_gate, checks_of
from learn_spark.ads.experiments.cohorts import title_of
from learn_spark.ads.experiments.comparisons import compare, resample
from learn_spark.ads.experiments.moments import SUMS
from learn_spark.ads.experiments.result import Check, Comparison, ExperimentResult, FalseAlarms
from learn_spark.ads.experiments.rows import Rows
from learn_spark.ads.experiments.user_table import UserTable
from learn_spark.ads.experiments.users import Users
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.experiment import ExperimentSettings
from learn_spark.core.stages.code import code_version

OF_REVENUE = ("revenue_per_user", "revenue_per_exposure")


@dataclass(frozen=True)
class _Findings:
    """What depends on whether arms are compared or one arm is halved (A/A)."""

    with_history: bool
    checks: Sequence[Check]
    shares: Mapping[str, float]
    whole: Sequence[Comparison] = ()
    cohorts: Sequence[Comparison] = ()
    skipped: Sequence[tuple[str, str, str]] = ()
    alarms: Sequence[FalseAlarms] = ()


def analyse(
    settings: ExperimentSettings, rows: Rows, users: Users, files: list[tuple[str, str]], run_id: str, started: float
) -> ExperimentResult:
    """The result from the counted rows and the table of users; raises LearnSparkError as ``ab_report.run``.

    ``files`` are (name, state) of the files read; ``started`` is the monotonic time at which the run began.
    """
    table = UserTable(users.path, users.user_cohorts, users.exposure_groups)
    by_arm = table.users_by_arm()
    metrics = [name for name in settings.metrics if users.revenue_known or name not in OF_REVENUE]
    if not metrics or (settings.primary is not None and settings.primary not in metrics):
        raise LearnSparkError("ab-report: no row of the experiment has a revenue, but metrics or primary need revenue")
    primary = settings.primary or metrics[0]
    if settings.aa_splits:
        findings = _halve(settings, table, by_arm, metrics)
    else:
        findings = _compare(settings, table, users, by_arm, metrics, primary)
    notes = _notes(settings, rows, users, metrics)
    if not findings.with_history:
        why = "no user has an exposure before the start" if settings.cuped else "cuped is off"
        notes.append(f"No variance reduction: {why}.")
    return ExperimentResult(
        name=settings.name,
        control=settings.control,
        users=by_arm or {"all": users.users},
        shares=findings.shares,
        period=users.period.texts,
        rows={
            "read": rows.read,
            "refused": rows.refused_rows,
            "repeated": rows.repeated,
            "in the experiment": users.rows_in_period,
            "before it": users.rows_before,
            "outside both": users.rows_outside,
        },
        refused=rows.refused,
        checks=(check_of_gate(rows), *findings.checks),
        primary=primary,
        whole=tuple(findings.whole),
        cohorts=tuple(findings.cohorts),
        false_alarms=tuple(findings.alarms),
        skipped=tuple(findings.skipped),
        notes=tuple(notes),
        cohort_titles={name: title_of(name, cohort) for name, cohort in settings.cohorts.items()},
        settings=settings.model_dump(exclude={"spark"}),
        files=tuple(files),
        seconds=time.monotonic() - started,
        run_id=run_id,
        code_version=code_version("learn_spark.ads.experiments.ab_report"),
    )


def _halve(
    settings: ExperimentSettings, table: UserTable, by_arm: Mapping[str, int], metrics: Sequence[str]
) -> _Findings:
    """A/A: the control's users, or all users of a log without arms, halved at random."""
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
    checks = [check_of_false_alarms(one, settings) for one in alarms]
    return _Findings(with_history, checks, shares={}, alarms=alarms)


def _compare(
    settings: ExperimentSettings,
    table: UserTable,
    users: Users,
    by_arm: Mapping[str, int],
    metrics: Sequence[str],
    primary: str,
) -> _Findings:
    """Every treatment against the control."""
    shares = _shares(settings, by_arm)
    moments = table.moments(list(shares))
    with_history = _with_history(table, None, settings)
    whole, cohorts, skipped = compare(
        moments,
        resample(table, list(shares), settings.bootstrap_samples, settings.seed),
        treatments=[name for name in shares if name != settings.control],
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
    checks = checks_of(moments, users, shares, settings, with_history=with_history)
    return _Findings(with_history, checks, shares, whole, cohorts, skipped)


def _shares(settings: ExperimentSettings, by_arm: Mapping[str, int]) -> dict[str, float]:
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
    shares = settings.shares or dict.fromkeys(sorted(by_arm), 1.0)
    if unknown := sorted(set(by_arm) - set(shares)):
        raise LearnSparkError(f"ab-report: the logs have the arms {', '.join(unknown)}, which shares does not name")
    return {settings.control: shares[settings.control], **shares}


def _unknown_control(settings: ExperimentSettings, by_arm: Mapping[str, int]) -> LearnSparkError:
    return LearnSparkError(
        f"ab-report: no user is in the control {settings.control!r}; set control to one of the logs' arms: "
        f"{', '.join(sorted(by_arm))}"
    )


def _with_history(table: UserTable, arm: str | None, settings: ExperimentSettings) -> bool:
    """Whether CUPED is on, and a user of ``arm`` (None: any user) has an exposure before the start."""
    if not settings.cuped:
        return False
    return any(
        (batch.sums[batch.arms == arm if arm is not None else slice(None), 0, len(SUMS)] > 0).any()
        for batch in table.batches()
    )


def _notes(settings: ExperimentSettings, rows: Rows, users: Users, metrics: Sequence[str]) -> list[str]:
    notes = []
    if len(metrics) < len(settings.metrics):
        notes.append("No row of the experiment has a revenue: the metrics of revenue are left out.")
    if users.rows_without_arm:
        notes.append(
            f"{users.rows_without_arm:,} rows of the period have no arm; they count for users who are in an arm by "
            "another row or by the assignment, and for nobody else."
        )
    notes += [
        f"{count:,} users change their group of {name}; each is in that of the first exposure in the experiment."
        for name, count in users.changing.items()
        if count
    ]
    notes += [
        f"{count:,} rows are kept without a field that cannot be read: {reason}."
        for reason, count in rows.nulled.items()
    ]
    if rows.refused_at is not None:
        notes.append(f"The {rows.refused_rows:,} refused rows are in {rows.refused_at} with their reasons.")
    return notes
