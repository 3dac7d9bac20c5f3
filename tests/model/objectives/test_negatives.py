"""Samplers of negatives: their distribution, log q by hand, and the losses that use them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from learn_spark.model.objectives.negatives import item_log_q, uniform_negatives
from learn_spark.model.objectives.softmax import sampled_softmax_loss


@pytest.mark.parametrize("size", [120_000, (600, 200)])
def test_uniform_negatives_are_uniform_over_the_items(size: int | tuple[int, int]) -> None:
    drawn = uniform_negatives(size, n_items=50, generator=np.random.default_rng(1))
    assert drawn.shape == ((size,) if isinstance(size, int) else size)
    assert drawn.dtype == np.int64
    counts = np.bincount(drawn.ravel(), minlength=51)
    assert counts[0] == 0
    assert len(counts) == 51
    # Chi-square with 49 degrees of freedom: mean 49, standard deviation 9.9.
    assert ((counts[1:] - 2400) ** 2 / 2400).sum() < 49 + 4 * 9.9


def test_uniform_negatives_are_a_function_of_the_generator() -> None:
    one, same, other = (uniform_negatives(20, n_items=9, generator=np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    only = uniform_negatives((2, 3), n_items=1, generator=np.random.default_rng(0))
    np.testing.assert_array_equal(only, np.ones((2, 3)))


def test_positions_have_negatives_of_their_own() -> None:
    drawn = uniform_negatives((40, 30), n_items=1000, generator=np.random.default_rng(0))
    shared = sum(len(set(drawn[i]) & set(drawn[i + 1])) for i in range(39))
    assert shared < 39 * 3  # 30 * 30 / 1000 = 0.9 of them by chance


def test_log_q_by_hand() -> None:
    log_q = item_log_q(np.array([99, 6, 0, 2]))  # what stands at padding counts for nothing
    np.testing.assert_allclose(log_q[[1, 3]], [math.log(6 / 8), math.log(2 / 8)], rtol=1e-6)
    assert log_q[0] == log_q[2] == -np.inf
    assert log_q.dtype == np.float32


def test_corrected_in_batch_negatives_estimate_what_uniform_ones_do() -> None:
    """With log q off, the mean over draws of e^s is the sum over the catalogue, by whichever sampler."""
    rng = np.random.default_rng(0)
    counts = np.concatenate([[0], rng.integers(20, 200, 30)])
    log_q = item_log_q(counts)
    table = torch.from_numpy(rng.normal(size=(31, 4)) * 0.5)
    user = torch.from_numpy(rng.normal(size=(1, 4)))
    uniform = uniform_negatives(40_000, n_items=30, generator=rng)
    batch = rng.choice(31, 40_000, p=counts / counts.sum())
    chance = np.full(40_000, -math.log(30), dtype=np.float32)
    draws = {
        "uniform": (uniform, chance),
        "in-batch": (batch, log_q[batch]),
        "mixed": (np.concatenate([uniform, batch]), np.concatenate([chance, log_q[batch]])),
    }
    score = float(user @ table[5])
    expected = math.log(1 + float(torch.exp(user @ table[1:].T - score).sum() - 1))
    for name, (drawn, chances) in draws.items():
        loss = sampled_softmax_loss(
            user,
            table[[5]],
            table[drawn],
            torch.tensor([5]),
            torch.from_numpy(drawn),
            temperature=1.0,
            log_q_negative=torch.from_numpy(chances) + math.log(len(drawn)),
        )
        assert float(loss) == pytest.approx(expected, abs=0.02), name


def test_refuses() -> None:
    with pytest.raises(ValueError, match="n_items 0 must be at least 1"):
        uniform_negatives(3, n_items=0, generator=np.random.default_rng(0))
    with pytest.raises(ValueError, match="must be at least 0 and not all 0"):
        item_log_q(np.array([5, 0, 0]))
    with pytest.raises(ValueError, match="at least 0 and not all 0, got a minimum of -1"):
        item_log_q(np.array([0, -1, 3]))
