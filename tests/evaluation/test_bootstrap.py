"""The bootstrap: against a slow version, coverage of intervals, calibration of p, and pairing."""

from __future__ import annotations

import numpy as np
import pytest

from learn_spark.evaluation import bootstrap as module
from learn_spark.evaluation.bootstrap import Difference, interval, paired_differences, resampled_means


def paired_difference(first: np.ndarray, second: np.ndarray, *, samples: int, seed: int) -> Difference:
    (difference,) = paired_differences(first[:, None], second[:, None], samples=samples, seed=seed)
    return difference


def test_means_are_those_of_rows_drawn_one_by_one() -> None:
    values = np.random.default_rng(0).normal(size=(13, 3))
    means = resampled_means(values, samples=40, seed=5)
    drawn = np.random.default_rng(5).integers(0, 13, size=(40, 13))
    for sample, rows in enumerate(drawn):
        for column in range(3):
            assert means[sample, column] == pytest.approx(sum(values[row, column] for row in rows) / 13)


def test_the_size_of_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).random((50, 2))
    at_once = resampled_means(values, samples=31, seed=2)
    monkeypatch.setattr(module, "BLOCK_DRAWS", 3 * 50)
    assert np.allclose(resampled_means(values, samples=31, seed=2), at_once)
    assert not np.allclose(resampled_means(values, samples=31, seed=3), at_once)


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
    p = [paired_difference(generator.random(80), generator.random(80), samples=199, seed=seed).p for seed in range(300)]
    assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.10
    assert 0.40 <= np.mean(np.array(p) <= 0.5) <= 0.60


def test_pairing_detects_a_difference_smaller_than_the_spread_of_users() -> None:
    generator = np.random.default_rng(9)
    ability = generator.random(500)
    better = np.clip(ability + 0.01 + generator.normal(scale=0.02, size=500), 0, 1.2)
    difference = paired_difference(better, ability, samples=999, seed=0)
    assert difference.value == pytest.approx(float((better - ability).mean()))
    assert difference.low < difference.value < difference.high
    assert difference.low > 0
    assert difference.p == pytest.approx(2 / 1000)
    assert difference.users == 500
    back = paired_difference(ability, better, samples=999, seed=0)
    assert (back.value, back.low, back.high, back.p) == pytest.approx(
        (-difference.value, -difference.high, -difference.low, difference.p)
    )


def test_columns_are_compared_independently() -> None:
    first, second = np.random.default_rng(1).random((2, 60, 3))
    together = paired_differences(first, second, samples=199, seed=4)
    for column, difference in enumerate(together):
        single = paired_difference(first[:, column], second[:, column], samples=199, seed=4)
        assert (difference.value, difference.low, difference.high, difference.p) == pytest.approx(
            (single.value, single.low, single.high, single.p)
        )


def test_no_difference_at_all() -> None:
    same = np.random.default_rng(0).random(20)
    difference = paired_difference(same, same, samples=99, seed=0)
    assert (difference.value, difference.low, difference.high, difference.p) == (0.0, 0.0, 0.0, 1.0)


def test_refuses() -> None:
    with pytest.raises(ValueError, match=r"got \(0, 2\)"):
        resampled_means(np.zeros((0, 2)), samples=10, seed=0)
    with pytest.raises(ValueError, match="got 0"):
        resampled_means(np.zeros((3, 2)), samples=0, seed=0)
    with pytest.raises(ValueError, match=r"got \(3, 1\) and \(4, 1\)"):
        paired_differences(np.zeros((3, 1)), np.zeros((4, 1)), samples=9, seed=0)
