"""Checks of an experiment's validity: sample ratio, one arm a user, assignment, balance before, gate, false alarms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from learn_spark.ads.experiments.corrections import corrected
from learn_spark.ads.experiments.lift import contrast
from learn_spark.ads.experiments.metrics import METRICS
from learn_spark.ads.experiments.moments import SUMS, WIDTH, Moments
from learn_spark.ads.experiments.result import Check, FalseAlarms
from learn_spark.ads.experiments.rows import Rows
from learn_spark.ads.experiments.sample_ratio import sample_ratio_p
from learn_spark.ads.experiments.user_table import WHOLE, Key
from learn_spark.ads.experiments.users import Users
from learn_spark.core.settings.experiment import ExperimentSettings


def checks_of(
    moments: Mapping[Key, Moments],
    users: Users,
    shares: Mapping[str, float],
    settings: ExperimentSettings,
    *,
    with_history: bool,
) -> list[Check]:
    """The checks of compared arms: sample ratio (overall, and by cohort of users), users in two arms, logged against
    assigned arms, and the balance of the arms before the experiment.
    """
    checks = [_ratio(moments, shares, settings)]
    checks += _ratios_by_cohort(moments, users.user_cohorts, shares, settings)
    share = users.two_arms / users.users
    checks.append(
        Check(
            "one arm a user",
            "failed" if share > settings.max_two_arms else "warning" if users.two_arms else "passed",
            f"{users.two_arms:,} of {users.users:,} users",
            f"users with rows of two arms, who are left out; {settings.max_two_arms:.2%} at most",
        )
    )
    if users.not_as_assigned is not None:
        checks.append(
            Check(
                "logged as assigned",
                "failed" if users.not_as_assigned else "passed",
                f"{users.not_as_assigned:,} of {users.users:,} users",
                "users whose logged arm is not the one that the assignment gives",
            )
        )
    if with_history:
        balance = _balance(moments, [name for name in shares if name != settings.control], settings)
        checks += [] if balance is None else [balance]
    return checks


def _users_of(moments: Mapping[Key, Moments], cohort: str, group: str, shares: Mapping[str, float]) -> dict[str, int]:
    parts = {arm: moments.get((cohort, group, arm)) for arm in shares}
    return {arm: int(part.users) if part else 0 for arm, part in parts.items()}


def _ratio(moments: Mapping[Key, Moments], shares: Mapping[str, float], settings: ExperimentSettings) -> Check:
    users = _users_of(moments, *WHOLE, shares)
    p = sample_ratio_p(users, shares)
    total, whole = sum(users.values()), sum(shares.values())
    counts = ", ".join(f"{arm} {n:,} (expected {total * shares[arm] / whole:,.0f})" for arm, n in users.items())
    return Check(
        "sample ratio",
        "failed" if p < settings.ratio_alpha else "passed",
        f"p = {p:.3g}: {counts}",
        f"users by arm against the shares; below {settings.ratio_alpha:g} the arms cannot be compared",
    )


def _ratios_by_cohort(
    moments: Mapping[Key, Moments], cohorts: Sequence[str], shares: Mapping[str, float], settings: ExperimentSettings
) -> list[Check]:
    checks = []
    for cohort in cohorts:
        groups = sorted({group for name, group, _ in moments if name == cohort})
        counts = {group: _users_of(moments, cohort, group, shares) for group in groups}
        p = corrected([sample_ratio_p(count, shares) for count in counts.values()], "holm")
        worst = int(np.argmin(p))
        checks.append(
            Check(
                f"sample ratio by {cohort}",
                "warning" if p[worst] < settings.ratio_alpha else "passed",
                f"smallest p = {p[worst]:.3g} ({groups[worst]}), of {len(groups)} groups, corrected",
                "a group whose arms are not in the shares: users are lost there, or the treatment moves users into it",
            )
        )
    return checks


def _balance(moments: Mapping[Key, Moments], treatments: Sequence[str], settings: ExperimentSettings) -> Check | None:
    """The metrics of the time before the start, compared as the experiment's are: there is no effect to find.

    None where no metric of that time can be compared, as where an arm had no exposures then.
    """
    swapped = [*range(len(SUMS), WIDTH), *range(len(SUMS))]
    tests: list[tuple[float, str]] = []
    for treatment in treatments:
        pair = [_columns_of(moments[*WHOLE, arm], swapped) for arm in (settings.control, treatment)]
        for name in settings.metrics:
            raw = float(contrast(pair[0], pair[1], METRICS[name], np.zeros(WIDTH)).p())
            if np.isfinite(raw):
                tests.append((raw, f"{METRICS[name].label.lower()} ({treatment})"))
    if not tests:
        return None
    p = corrected([raw for raw, _ in tests], "holm")
    worst = int(np.argmin(p))
    return Check(
        "alike before",
        "warning" if p[worst] < settings.ratio_alpha else "passed",
        f"smallest p = {p[worst]:.3g} ({tests[worst][1]}), of {len(p)} differences, corrected",
        "the same metrics before the experiment, where the treatment cannot have had an effect",
    )


def _columns_of(moments: Moments, columns: list[int]) -> Moments:
    return Moments(moments.users, moments.mean[columns], moments.comoment[np.ix_(columns, columns)])


def check_of_gate(rows: Rows) -> Check:
    """The verdict of the quality gate on the logs."""
    broken = [*rows.gate.broken("fail"), *rows.gate.broken("warn")]
    return Check(
        "the logs' gate",
        "failed" if not rows.gate.passed else "warning" if broken else "passed",
        "; ".join(result.sentence() for result in broken) or f"{len(rows.gate.results)} rules passed",
        "the rules of exposures (schemas/exposures.yaml)",
    )


def check_of_false_alarms(alarms: FalseAlarms, settings: ExperimentSettings) -> Check:
    """Whether the number of false alarms is within 3.3 standard deviations (p = 0.001) of alpha times the splits.

    The splits halve the same users, and are independent all the same.
    """
    observed = alarms.plain if alarms.reduced is None else alarms.reduced
    expected = settings.alpha * alarms.splits
    tolerance = 3.3 * (settings.alpha * (1 - settings.alpha) * alarms.splits) ** 0.5 + 1
    return Check(
        f"false alarms in {alarms.metric.replace('_', ' ')}",
        "passed" if abs(observed - expected) <= tolerance else "failed",
        f"{observed:,} of {alarms.splits:,} splits, {observed / alarms.splits:.1%}",
        f"halvings with a difference at {settings.alpha:g}; {expected:,.0f} expected, {tolerance:,.0f} more or less",
    )
