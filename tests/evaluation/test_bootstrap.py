"""The bootstrap over users: intervals by hand, their coverage, calibration of p, and pairing."""

from __future__ import annotations

import numpy as np
import pytest

from learn_spark.evaluation.bootstrap import Difference, interval, paired_difference
from learn_spark.evaluation.resampling import Resamples


def resampled_means(values: np.ndarray, *, samples: int, seed: int) -> np.ndarray:
    """Means [samples, M] of ``values`` [n, M] under resamples of n users."""
    resamples = Resamples(samples, seed)
    resamples.add(np.arange(len(values), dtype=np.uint64), [("all", np.arange(len(values)), values)])
    return resamples.means("all")


def difference_of(first: np.ndarray, second: np.ndarray, *, samples: int, seed: int) -> Difference:
    means = resampled_means(np.stack([first, second], axis=1), samples=samples, seed=seed)
    return paired_difference(float((first - second).mean()), means[:, 0] - means[:, 1], len(first))


def test_interval_by_hand() -> None:
    means = np.stack([np.arange(201.0), np.full(201, 0.25)], axis=1)
    low, high = interval(means[::-1])
    assert np.allclose(low, [5.0, 0.25])
    assert np.allclose(high, [195.0, 0.25])


def test_an_interval_covers_the_true_mean_at_its_level() -> None:
    """400 worlds of 200 users, hits with a chance of 0.2: 95 % of the intervals cover it, within chance."""
    generator = np.random.default_rng(3)
    hits = (generator.random((200, 400)) < 0.2).astype(float)
    low, high = interval(resampled_means(hits, samples=400, seed=1))
    share = ((low <= 0.2) & (high >= 0.2)).mean()
    assert 0.91 <= share <= 0.98
    # As wide as the normal one of the same data, 2 x 1.96 standard errors.
    np.testing.assert_allclose((high - low).mean(), 3.92 * np.sqrt(0.2 * 0.8 / 200), rtol=0.05)


def test_p_below_a_level_is_as_rare_as_the_level() -> None:
    generator = np.random.default_rng(7)
    p = [difference_of(generator.random(80), generator.random(80), samples=199, seed=seed).p for seed in range(300)]
    assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.10
    assert 0.40 <= np.mean(np.array(p) <= 0.5) <= 0.60


def test_pairing_detects_a_difference_smaller_than_the_spread_of_users() -> None:
    generator = np.random.default_rng(9)
    ability = generator.random(500)
    better = np.clip(ability + 0.01 + generator.normal(scale=0.02, size=500), 0, 1.2)
    difference = difference_of(better, ability, samples=999, seed=0)
    assert difference.value == pytest.approx(float((better - ability).mean()))
    assert difference.low < difference.value < difference.high
    assert difference.low > 0
    assert difference.p == pytest.approx(2 / 1000)
    assert difference.users == 500
    back = difference_of(ability, better, samples=999, seed=0)
    assert (back.value, back.low, back.high, back.p) == pytest.approx(
        (-difference.value, -difference.high, -difference.low, difference.p)
    )


def test_no_difference_at_all() -> None:
    same = np.random.default_rng(0).random(20)
    difference = difference_of(same, same, samples=99, seed=0)
    assert (difference.value, difference.low, difference.high, difference.p) == (0.0, 0.0, 0.0, 1.0)


def test_a_difference_by_hand() -> None:
    """Of 9 resamples that drew a user, 2 are on the other side of zero: p is 2 (1 + 2) / (1 + 9)."""
    resampled = np.array([0.3, -0.1, np.nan, 0.1, 0.2, -0.2, 0.4, 0.5, 0.6, 0.7])
    difference = paired_difference(0.25, resampled, 12)
    low, high = np.quantile(np.delete(resampled, 2), [0.025, 0.975])
    assert difference == Difference(0.25, pytest.approx(low), pytest.approx(high), pytest.approx(0.6), 12)
    wider = paired_difference(0.25, resampled, 12, unit=0.01)
    assert (wider.low, wider.high) == (pytest.approx(low - 0.01), pytest.approx(high + 0.01))
    assert paired_difference(0.25, np.full(3, np.nan), 1) == Difference(0.25, -1.0, 1.0, 1.0, 1)
