"""Samplers of negatives: their distribution, log q by hand, and what the losses make of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from learn_spark.objectives.negatives import in_batch_negatives, item_log_q, mixed_negatives, uniform_negatives
from learn_spark.objectives.softmax import sampled_softmax_loss


@pytest.mark.parametrize("size", [120_000, (600, 200)])
def test_uniform_negatives_are_uniform_over_the_items(size: int | tuple[int, int]) -> None:
    drawn = uniform_negatives(size, n_items=50, generator=np.random.default_rng(1))
    assert drawn.ids.shape == ((size,) if isinstance(size, int) else size)
    assert drawn.ids.dtype == np.int64
    counts = np.bincount(drawn.ids.ravel(), minlength=51)
    assert counts[0] == 0
    assert len(counts) == 51
    # Chi-square with 49 degrees of freedom: mean 49, standard deviation 9.9.
    assert ((counts[1:] - 2400) ** 2 / 2400).sum() < 49 + 4 * 9.9
    np.testing.assert_allclose(drawn.log_q, np.full(drawn.ids.shape, math.log(1 / 50)), rtol=1e-6)


def test_uniform_negatives_are_a_function_of_the_generator() -> None:
    one, same, other = (uniform_negatives(20, n_items=9, generator=np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.ids, same.ids)
    assert (one.ids != other.ids).any()
    only = uniform_negatives((2, 3), n_items=1, generator=np.random.default_rng(0))
    np.testing.assert_array_equal(only.ids, np.ones((2, 3)))
    np.testing.assert_array_equal(only.log_q, np.zeros((2, 3)))


def test_positions_have_negatives_of_their_own() -> None:
    drawn = uniform_negatives((40, 30), n_items=1000, generator=np.random.default_rng(0)).ids
    shared = sum(len(set(drawn[i]) & set(drawn[i + 1])) for i in range(39))
    assert shared < 39 * 3  # 30 * 30 / 1000 = 0.9 of them by chance


def test_log_q_by_hand() -> None:
    log_q = item_log_q(np.array([99, 6, 0, 2]))  # what stands at padding counts for nothing
    np.testing.assert_allclose(log_q[[1, 3]], [math.log(6 / 8), math.log(2 / 8)], rtol=1e-6)
    assert log_q[0] == log_q[2] == -np.inf
    assert log_q.dtype == np.float32


def test_in_batch_negatives_are_the_positives_and_follow_their_log_q() -> None:
    counts = np.array([0, 500, 300, 150, 50])
    log_q = item_log_q(counts)
    events = np.repeat(np.arange(5), counts)
    rng = np.random.default_rng(0)
    drawn = in_batch_negatives(rng.choice(events, 40_000), log_q=log_q)
    assert drawn.ids.shape == drawn.log_q.shape == (40_000,)
    expected = 40_000 * np.exp(log_q[1:])
    found = np.bincount(drawn.ids, minlength=5)[1:]
    assert ((found - expected) ** 2 / expected).sum() < 3 + 4 * math.sqrt(6)  # chi-square, 3 degrees of freedom
    np.testing.assert_array_equal(drawn.log_q, log_q[drawn.ids])


def test_in_batch_negatives_keep_order_and_repeats() -> None:
    drawn = in_batch_negatives(np.array([3, 1, 3]), log_q=item_log_q(np.array([0, 1, 5, 2])))
    assert drawn.ids.tolist() == [3, 1, 3]
    np.testing.assert_allclose(drawn.log_q, np.log([2 / 8, 1 / 8, 2 / 8]), rtol=1e-6)


def test_mixed_negatives_stand_side_by_side() -> None:
    log_q = item_log_q(np.array([0, 1, 5, 2]))
    uniform = uniform_negatives(4, n_items=3, generator=np.random.default_rng(0))
    batch = in_batch_negatives(np.array([2, 3]), log_q=log_q)
    both = mixed_negatives(uniform, batch)
    assert both.ids.tolist() == [*uniform.ids.tolist(), 2, 3]
    np.testing.assert_allclose(both.log_q[4:], np.log([5 / 8, 2 / 8]), rtol=1e-6)
    np.testing.assert_allclose(both.log_q[:4], math.log(1 / 3), rtol=1e-6)
    wide = mixed_negatives(*(uniform_negatives((5, n), n_items=3, generator=np.random.default_rng(n)) for n in (2, 3)))
    assert wide.ids.shape == wide.log_q.shape == (5, 5)


def test_corrected_in_batch_negatives_estimate_what_uniform_ones_do() -> None:
    """With log q off, the mean over draws of e^s is the sum over the catalogue, by whichever sampler."""
    rng = np.random.default_rng(0)
    counts = np.concatenate([[0], rng.integers(20, 200, 30)])
    log_q = item_log_q(counts)
    table = torch.from_numpy(rng.normal(size=(31, 4)) * 0.5)
    user = torch.from_numpy(rng.normal(size=(1, 4)))
    draws = {
        "uniform": uniform_negatives(40_000, n_items=30, generator=rng),
        "in-batch": in_batch_negatives(rng.choice(31, 40_000, p=counts / counts.sum()), log_q=log_q),
    }
    draws["mixed"] = mixed_negatives(*draws.values())
    score = float(user @ table[5])
    expected = math.log(1 + float(torch.exp(user @ table[1:].T - score).sum() - 1))
    for name, drawn in draws.items():
        loss = sampled_softmax_loss(
            user,
            table[[5]],
            table[drawn.ids],
            torch.tensor([5]),
            torch.from_numpy(drawn.ids),
            temperature=1.0,
            log_q_negative=torch.from_numpy(drawn.log_q) + math.log(len(drawn.ids)),
        )
        assert float(loss) == pytest.approx(expected, abs=0.02), name


def test_refuses() -> None:
    with pytest.raises(ValueError, match="n_items 0 must be at least 1"):
        uniform_negatives(3, n_items=0, generator=np.random.default_rng(0))
    with pytest.raises(ValueError, match="2 positives were counted 0 times, the first is item 1"):
        in_batch_negatives(np.array([3, 1, 2, 1]), log_q=item_log_q(np.array([0, 0, 0, 2])))
    with pytest.raises(ValueError, match="must not be negative and not all 0"):
        item_log_q(np.array([5, 0, 0]))
    with pytest.raises(ValueError, match="must not be negative"):
        item_log_q(np.array([0, -1, 3]))
    shared, own = (uniform_negatives(size, n_items=3, generator=np.random.default_rng(0)) for size in (2, (2, 3)))
    with pytest.raises(ValueError, match=r"\[\(2,\), \(2, 3\)\] cannot be put side by side"):
        mixed_negatives(shared, own)
