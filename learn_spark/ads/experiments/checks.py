"""What must hold before an experiment's figures are believed: ratio, one arm a user, assignment, balance before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from learn_spark.ads.experiments.corrections import corrected
from learn_spark.ads.experiments.lift import contrast
from learn_spark.ads.experiments.metrics import METRICS
from learn_spark.ads.experiments.moments import SUMS, WIDTH, Moments
from learn_spark.ads.experiments.result import Check
from learn_spark.ads.experiments.sample_ratio import sample_ratio_p
from learn_spark.ads.experiments.slices import WHOLE, Key
from learn_spark.ads.experiments.users import Users
from learn_spark.core.settings.experiment import Experiment


def checks_of(
    moments: Mapping[Key, Moments],
    users: Users,
    shares: Mapping[str, float],
    settings: Experiment,
    *,
    with_history: bool,
) -> list[Check]:
    """Sample ratio (on the whole, and by cohort of users), users in two arms, logged against assigned arms, and whether
    the arms were alike before the experiment.
    """
    found = [_ratio(moments, shares, settings)]
    found += _ratios_by_cohort(moments, users.user_cohorts, shares, settings)
    share = users.two_arms / users.users
    found.append(
        Check(
            "one arm a user",
            "failed" if share > settings.max_two_arms else "warning" if users.two_arms else "passed",
            f"{users.two_arms:,} of {users.users:,} users",
            f"users with rows of two arms, who are left out; {settings.max_two_arms:.2%} at most",
        )
    )
    if users.not_as_assigned is not None:
        found.append(
            Check(
                "logged as assigned",
                "failed" if users.not_as_assigned else "passed",
                f"{users.not_as_assigned:,} of {users.users:,} users",
                "users whose logged arm is not the one that the assignment gives",
            )
        )
    if with_history:
        found.append(_balance(moments, [name for name in shares if name != settings.control], settings))
    return found


def _users_of(moments: Mapping[Key, Moments], cohort: str, group: str, shares: Mapping[str, float]) -> dict[str, int]:
    parts = {arm: moments.get((cohort, group, arm)) for arm in shares}
    return {arm: int(part.users) if part else 0 for arm, part in parts.items()}


def _ratio(moments: Mapping[Key, Moments], shares: Mapping[str, float], settings: Experiment) -> Check:
    users = _users_of(moments, *WHOLE, shares)
    p = sample_ratio_p(users, shares)
    total, whole = sum(users.values()), sum(shares.values())
    told = ", ".join(f"{arm} {n:,} (expected {total * shares[arm] / whole:,.0f})" for arm, n in users.items())
    return Check(
        "sample ratio",
        "failed" if p < settings.ratio_alpha else "passed",
        f"p = {p:.3g}: {told}",
        f"users by arm against the shares; below {settings.ratio_alpha:g} the arms cannot be compared",
    )


def _ratios_by_cohort(
    moments: Mapping[Key, Moments], cohorts: Sequence[str], shares: Mapping[str, float], settings: Experiment
) -> list[Check]:
    found = []
    for cohort in cohorts:
        groups = sorted({group for name, group, _ in moments if name == cohort})
        counts = {group: _users_of(moments, cohort, group, shares) for group in groups}
        p = corrected([sample_ratio_p(count, shares) for count in counts.values()], "holm")
        worst = int(np.argmin(p))
        found.append(
            Check(
                f"sample ratio by {cohort}",
                "warning" if p[worst] < settings.ratio_alpha else "passed",
                f"smallest p = {p[worst]:.3g} ({groups[worst]}), of {len(groups)} groups, corrected",
                "a group whose arms are not in the shares: users are lost there, or the treatment moves users into it",
            )
        )
    return found


def _balance(moments: Mapping[Key, Moments], treatments: Sequence[str], settings: Experiment) -> Check:
    """The metrics of the time before, compared as if they were the experiment's: there is no effect to be found."""
    swapped = [*range(len(SUMS), WIDTH), *range(len(SUMS))]
    told: list[tuple[float, str]] = []
    for treatment in treatments:
        pair = [_taken(moments[*WHOLE, arm], swapped) for arm in (settings.control, treatment)]
        for name in settings.metrics:
            alone = float(contrast(pair[0], pair[1], METRICS[name], np.zeros(WIDTH)).p())
            if np.isfinite(alone):
                told.append((alone, f"{METRICS[name].label.lower()} ({treatment})"))
    p = corrected([alone for alone, _ in told], "holm")
    worst = int(np.argmin(p))
    return Check(
        "alike before",
        "warning" if p[worst] < settings.ratio_alpha else "passed",
        f"smallest p = {p[worst]:.3g} ({told[worst][1]}), of {len(p)} differences, corrected",
        "the same metrics before the experiment, where the treatment cannot have had an effect",
    )


def _taken(moments: Moments, columns: list[int]) -> Moments:
    return Moments(moments.users, moments.mean[columns], moments.comoment[np.ix_(columns, columns)])
