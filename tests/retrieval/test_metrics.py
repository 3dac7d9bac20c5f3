"""HR and NDCG by hand, with half ranks, and at their bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from learn_spark.retrieval.metrics import hit_rate, ndcg, summarise

RANKS = np.array([1.0, 2.0, 2.5, 10.0, 10.5, np.inf])


def test_by_hand() -> None:
    assert hit_rate(RANKS, 10).tolist() == [1, 1, 1, 1, 0, 0]
    assert hit_rate(RANKS, 2).tolist() == [1, 1, 0, 0, 0, 0]
    np.testing.assert_allclose(
        ndcg(RANKS, 10), [1.0, 1 / math.log2(3), 1 / math.log2(3.5), 1 / math.log2(11), 0.0, 0.0], rtol=1e-12
    )
    np.testing.assert_allclose(ndcg(RANKS, 2), [1.0, 1 / math.log2(3), 0, 0, 0, 0], rtol=1e-12)


def test_summary_is_the_mean_over_users() -> None:
    found = summarise(RANKS, [1, 10])
    assert list(found) == ["HR@1", "NDCG@1", "HR@10", "NDCG@10"]
    assert found["HR@1"] == found["NDCG@1"] == pytest.approx(1 / 6)
    assert found["HR@10"] == pytest.approx(4 / 6)
    expected = (1 + 1 / math.log2(3) + 1 / math.log2(3.5) + 1 / math.log2(11)) / 6
    assert found["NDCG@10"] == pytest.approx(expected)
    assert all(type(value) is float for value in found.values())


def test_oracle_and_chance() -> None:
    assert summarise(np.ones(7), [1, 50]) == {"HR@1": 1.0, "NDCG@1": 1.0, "HR@50": 1.0, "NDCG@50": 1.0}
    ranks = np.random.default_rng(0).integers(1, 201, size=20_000).astype(float)
    found = summarise(ranks, [10])
    assert abs(found["HR@10"] - 10 / 200) < 5 * math.sqrt(0.05 * 0.95 / 20_000)
    gain = sum(1 / math.log2(1 + rank) for rank in range(1, 11)) / 200
    assert abs(found["NDCG@10"] - gain) < 0.005


@pytest.mark.parametrize(
    ("ranks", "k", "message"),
    [
        (np.zeros(0), 10, r"at least one user, got the shape \(0,\)"),
        (np.ones((2, 2)), 10, r"the shape \(2, 2\)"),
        (np.array([1.0, 0.5]), 10, "1 of 2 ranks"),
        (np.array([np.nan, 2.0, 0.0]), 10, "2 of 3 ranks"),
        (np.ones(2), 0, "k 0"),
    ],
)
def test_refuses(ranks: np.ndarray, k: int, message: str) -> None:
    for metric in (hit_rate, ndcg):
        with pytest.raises(ValueError, match=message):
            metric(ranks, k)
    with pytest.raises(ValueError, match=message):
        summarise(ranks, [k])
