"""A/A: one arm halved at random many times. An analysis that finds differences more often than alpha is not valid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from learn_spark.ads.experiments.cuped import coefficients
from learn_spark.ads.experiments.lift import contrast
from learn_spark.ads.experiments.metrics import METRICS
from learn_spark.ads.experiments.moments import WIDTH, Moments
from learn_spark.ads.experiments.result import FalseAlarms
from learn_spark.ads.experiments.user_table import UserTable
from learn_spark.evaluation.mixing import mixed, seeded

QUANTILES = tuple(round(0.05 * step, 2) for step in range(1, 20))
AT_ONCE = 128  # splits whose moments are computed together


def false_alarms(
    table: UserTable,
    arm: str | None,
    splits: int,
    *,
    metrics: Sequence[str],
    alpha: float,
    seed: int,
    with_history: bool,
) -> list[FalseAlarms]:
    """Halve the users of ``arm`` (None: all users) ``splits`` times and compare the halves as two arms.

    A user's half in a split is a function of (user, split, seed) alone. Memory: the moments of the splits, and a batch.
    """
    centre = _centre(table, arm)
    kept = [name for name in metrics if np.isfinite(METRICS[name].value(centre.mean))]
    p: dict[tuple[str, bool], list[np.ndarray]] = {(name, pre): [] for name in kept for pre in (False, True)}
    for first in range(0, splits, AT_ONCE):
        numbers = np.arange(first, min(first + AT_ONCE, splits), dtype=np.uint64)
        halves = _halves(table, arm, numbers, seed, centre)
        for name in kept:
            metric = METRICS[name]
            p[name, False].append(contrast(*halves, metric, np.zeros(WIDTH)).p())
            if with_history:
                p[name, True].append(contrast(*halves, metric, coefficients(*halves, metric)).p())
    alarms = []
    for name in kept:
        plain = np.concatenate(p[name, False])
        reduced = np.concatenate(p[name, True]) if with_history else None
        used = plain if reduced is None else reduced
        alarms.append(
            FalseAlarms(
                metric=name,
                splits=splits,
                plain=int((plain < alpha).sum()),
                reduced=None if reduced is None else int((reduced < alpha).sum()),
                quantiles=tuple(float(q) for q in np.quantile(used, QUANTILES)),
            )
        )
    return alarms


def _centre(table: UserTable, arm: str | None) -> Moments:
    moments = Moments.of(np.zeros((0, WIDTH)))
    for batch in table.batches():
        moments = moments.merged(Moments.of(batch.sums[_rows(batch.arms, arm), 0]))
    return moments


def _halves(
    table: UserTable, arm: str | None, numbers: np.ndarray, seed: int, centre: Moments
) -> tuple[Moments, Moments]:
    """Moments [m] of both halves, by sums of products about the mean of all."""
    splits, pairs = len(numbers), WIDTH * WIDTH
    users, first, second = np.zeros(splits), np.zeros((splits, WIDTH)), np.zeros((splits, pairs))
    for batch in table.batches():
        rows = _rows(batch.arms, arm)
        values = batch.sums[rows, 0] - centre.mean
        chosen = (mixed(seeded(batch.seeds[rows], seed), numbers) >> np.uint64(63)).astype(np.float64)  # [m, n]
        users += chosen.sum(axis=1)
        first += chosen @ values
        second += chosen @ (values[:, :, None] * values[:, None, :]).reshape(-1, pairs)
    whole = centre.comoment.reshape(-1)
    halves = []
    for count, total, products in ((users, first, second), (centre.users - users, -first, whole - second)):
        shift = total / np.maximum(count, 1.0)[:, None]
        between = count[:, None, None] * shift[:, :, None] * shift[:, None, :]
        comoment = products.reshape(splits, WIDTH, WIDTH) - between
        halves.append(Moments(count, centre.mean + shift, comoment))
    return halves[0], halves[1]


def _rows(arms: np.ndarray, arm: str | None) -> np.ndarray:
    return np.flatnonzero(arms == arm) if arm is not None else np.arange(len(arms))
