"""Every treatment against the control in every metric, overall and in every cohort, corrected and with power."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from learn_spark.ads.experiments.corrections import corrected
from learn_spark.ads.experiments.cuped import coefficients
from learn_spark.ads.experiments.lift import Effect, contrast, effect, values
from learn_spark.ads.experiments.metrics import METRICS, Metric
from learn_spark.ads.experiments.moments import WIDTH, Moments
from learn_spark.ads.experiments.power import detectable, power, users_needed
from learn_spark.ads.experiments.result import Comparison
from learn_spark.ads.experiments.user_table import WHOLE, Key, UserTable
from learn_spark.core.settings.experiment import ExperimentSettings
from learn_spark.evaluation.resampling import Resamples, interval

NONE = np.zeros(WIDTH)


def compare(
    moments: Mapping[Key, Moments],
    resamples: Resamples | None,
    *,
    treatments: Sequence[str],
    metrics: Sequence[str],
    primary: str,
    settings: ExperimentSettings,
    with_history: bool,
) -> tuple[list[Comparison], list[Comparison], list[tuple[str, str, str]]]:
    """(comparisons of all users, those of cohorts, groups that were not compared and why).

    p is corrected in three families: the primary metric over treatments; all other metrics and treatments; and all
    cohorts, metrics and treatments together.
    """
    whole: list[Comparison] = []
    cohorts: list[Comparison] = []
    skipped = []
    for cohort, group in dict.fromkeys((cohort, group) for cohort, group, _ in moments):
        for treatment in treatments:
            pair = [moments.get((cohort, group, arm)) for arm in (settings.control, treatment)]
            least = min(int(arm.users) if arm else 0 for arm in pair)
            if least < settings.min_users:
                skipped.append((cohort, group, f"{least:,} users of an arm; min_users is {settings.min_users:,}"))
                continue
            comparisons = whole if (cohort, group) == WHOLE else cohorts
            for name in metrics:
                keys = [(cohort, group, settings.control), (cohort, group, treatment)]
                one = _comparison(keys, moments, resamples, METRICS[name], settings, with_history)
                if one is None:
                    skipped.append((cohort, group, f"{METRICS[name].label.lower()}: an arm has no exposure here"))
                else:
                    comparisons.append(one)
    families = [
        [one for one in whole if one.metric == primary],
        [one for one in whole if one.metric != primary],
        cohorts,
    ]
    first, second, third = ([*_adjusted(family, settings)] for family in families)
    by_place = {(one.treatment, one.metric): one for one in (*first, *second)}
    return [by_place[one.treatment, one.metric] for one in whole], third, skipped


def resample(table: UserTable, arms: Sequence[str], samples: int, seed: int) -> Resamples | None:
    """Resampled sums of every part of the table; None for no samples."""
    if not samples:
        return None
    resamples = Resamples(samples, seed)
    for batch in table.batches():
        resamples.add(batch.seeds, list(table.parts(batch, arms)))
    return resamples


def _comparison(
    keys: Sequence[Key],
    moments: Mapping[Key, Moments],
    resamples: Resamples | None,
    metric: Metric,
    settings: ExperimentSettings,
    with_history: bool,
) -> Comparison | None:
    control, treatment = (moments[key] for key in keys)
    if not np.isfinite([metric.value(control.mean), metric.value(treatment.mean)]).all():
        return None
    theta = coefficients(control, treatment, metric) if with_history else NONE
    plain = effect(contrast(control, treatment, metric, NONE), settings.alpha)
    reduced = effect(contrast(control, treatment, metric, theta), settings.alpha) if with_history else None
    best = reduced or plain
    bootstrap = None
    if resamples is not None:
        share = float(control.users / (control.users + treatment.users))
        control_value, treatment_value = values(
            resamples.means(keys[0]), resamples.means(keys[1]), metric, theta, share
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            bootstrap = interval(
                np.where(control_value > 0, treatment_value / control_value - 1, np.nan), settings.alpha
            )
    variance_kept = None
    if reduced is not None and plain.standard_error > 0:
        variance_kept = (reduced.standard_error / plain.standard_error) ** 2
    users = int(control.users + treatment.users)
    return Comparison(
        treatment=keys[1][2],
        cohort=keys[0][0],
        group=keys[0][1],
        metric=metric.name,
        users_control=int(control.users),
        users_treatment=int(treatment.users),
        plain=plain,
        reduced=reduced,
        variance_kept=variance_kept,
        bootstrap=bootstrap,
        p_adjusted=best.p,
        detectable=_detectable(best, settings),
        detectable_plain=_detectable(plain, settings),
        power=_power(best, settings),
        users_needed=_users_needed(best, users, settings),
    )


def _relative_error(measured: Effect) -> float | None:
    """The standard error of the difference in units of the control's value: that of a lift near 0."""
    return measured.standard_error / measured.control if measured.control > 0 else None


def _detectable(measured: Effect, settings: ExperimentSettings) -> float | None:
    error = _relative_error(measured)
    return None if error is None else detectable(error, settings.alpha, settings.power)


def _power(measured: Effect, settings: ExperimentSettings) -> float | None:
    error = _relative_error(measured)
    return None if error is None else power(settings.effect, error, settings.alpha)


def _users_needed(measured: Effect, users: int, settings: ExperimentSettings) -> int | None:
    error = _relative_error(measured)
    return None if error is None else users_needed(users, error, settings.effect, settings.alpha, settings.power)


def _adjusted(family: Sequence[Comparison], settings: ExperimentSettings) -> Iterator[Comparison]:
    adjusted = corrected([one.best.p for one in family], settings.correction)
    for one, p in zip(family, adjusted, strict=True):
        yield replace(one, p_adjusted=p)
