"""HR, recall, NDCG and MRR by hand, with half ranks, against a slow count and against another library."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learn_spark.model.scoring.metrics import hit_rate, ndcg, per_user, recall, reciprocal_rank, summarise

RANKS = np.array([1.0, 2.0, 2.5, 10.0, 10.5, 700.0])
# Three users: targets at 1 and 12; at 3 alone; at 2, 4 and 5.
MANY, OFFSETS = np.array([1.0, 12.0, 3.0, 2.0, 4.0, 5.0]), np.array([0, 2, 3, 6])


def test_one_target_by_hand() -> None:
    assert hit_rate(RANKS, 10).tolist() == recall(RANKS, 10).tolist() == [1, 1, 1, 1, 0, 0]
    assert hit_rate(RANKS, 2).tolist() == [1, 1, 0, 0, 0, 0]
    np.testing.assert_allclose(
        ndcg(RANKS, 10), [1.0, 1 / math.log2(3), 1 / math.log2(3.5), 1 / math.log2(11), 0.0, 0.0], rtol=1e-12
    )
    np.testing.assert_allclose(ndcg(RANKS, 2), [1.0, 1 / math.log2(3), 0, 0, 0, 0], rtol=1e-12)
    np.testing.assert_allclose(reciprocal_rank(RANKS), [1, 1 / 2, 1 / 2.5, 1 / 10, 1 / 10.5, 1 / 700])


def test_many_targets_by_hand() -> None:
    assert hit_rate(MANY, 2, OFFSETS).tolist() == [1, 0, 1]
    np.testing.assert_allclose(recall(MANY, 10, OFFSETS), [1 / 2, 1, 1])
    np.testing.assert_allclose(recall(MANY, 2, OFFSETS), [1 / 2, 0, 1 / 3])
    two = 1 + 1 / math.log2(3)
    three = two + 1 / 2
    third = 1 / math.log2(3) + 1 / math.log2(5) + 1 / math.log2(6)
    np.testing.assert_allclose(ndcg(MANY, 10, OFFSETS), [1 / two, 1 / 2, third / three], rtol=1e-12)
    # At 2, two of the third user's targets at most could be there.
    np.testing.assert_allclose(ndcg(MANY, 2, OFFSETS), [1 / two, 0, 1 / math.log2(3) / two], rtol=1e-12)
    np.testing.assert_allclose(reciprocal_rank(MANY, OFFSETS), [1, 1 / 3, 1 / 2])


def test_summary_is_the_mean_over_users() -> None:
    metrics = summarise(RANKS, [1, 10])
    assert list(metrics) == ["HR@1", "recall@1", "NDCG@1", "HR@10", "recall@10", "NDCG@10", "MRR"]
    assert metrics["HR@1"] == metrics["NDCG@1"] == pytest.approx(1 / 6)
    assert metrics["HR@10"] == pytest.approx(4 / 6)
    expected = (1 + 1 / math.log2(3) + 1 / math.log2(3.5) + 1 / math.log2(11)) / 6
    assert metrics["NDCG@10"] == pytest.approx(expected)
    assert all(type(value) is float for value in metrics.values())
    many = summarise(MANY, [10], OFFSETS)
    assert many["recall@10"] == pytest.approx(2.5 / 3)
    assert many["MRR"] == pytest.approx((1 + 1 / 3 + 1 / 2) / 3)


def slow_metrics(ranks: list[float], k: int) -> dict[str, float]:
    """The metrics of one user, as their definitions read."""
    inside = [rank for rank in ranks if rank <= k]
    ideal = sum(1 / math.log2(place + 1) for place in range(1, min(k, len(ranks)) + 1))
    return {
        f"HR@{k}": float(len(inside) > 0),
        f"recall@{k}": len(inside) / len(ranks),
        f"NDCG@{k}": sum(1 / math.log2(rank + 1) for rank in inside) / ideal,
        "MRR": 1 / min(ranks),
    }


@settings(max_examples=150, deadline=None)
@given(
    users=st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=12, unique=True), min_size=1, max_size=6),
    k=st.integers(1, 15),
)
def test_agrees_with_a_slow_count_and_stays_a_share(users: list[list[int]], k: int) -> None:
    ranks = np.array([rank for user_targets in users for rank in user_targets], dtype=float)
    offsets = np.cumsum([0, *map(len, users)])
    metrics = per_user(ranks, [k], offsets)
    for row, user_targets in enumerate(users):
        for name, value in slow_metrics([float(rank) for rank in user_targets], k).items():
            assert metrics[name][row] == pytest.approx(value, rel=1e-12)
    for values in metrics.values():
        assert ((values >= 0) & (values <= 1)).all()


@settings(max_examples=50, deadline=None)
@given(targets=st.integers(1, 30), k=st.integers(1, 40), tied=st.booleans())
def test_the_best_order_is_one_and_never_more(targets: int, k: int, tied: bool) -> None:
    """All targets in front; tied with each other, every one of them stands in the middle of them."""
    ranks = np.full(targets, (targets + 1) / 2) if tied else np.arange(1.0, targets + 1)
    value = ndcg(ranks, k, np.array([0, targets]))[0]
    assert value <= 1.0
    if not tied:
        assert value == pytest.approx(1.0)


def test_trec_eval_says_the_same() -> None:
    """400 users, 1 to 12 targets each, in lists of 300 items, by ir-measures, which runs trec_eval's code."""
    import ir_measures
    from ir_measures import RR, R, Success, nDCG

    generator = np.random.default_rng(4)
    lists = [generator.permutation(300) for _ in range(400)]
    targets = [generator.permutation(300)[: generator.integers(1, 13)] for _ in lists]
    ranks = np.concatenate(
        [np.argsort(items)[user_targets] + 1.0 for items, user_targets in zip(lists, targets, strict=True)]
    )
    ours = summarise(ranks, [10, 50], np.cumsum([0, *map(len, targets)]))
    qrels = {str(user): {str(item): 1 for item in user_targets} for user, user_targets in enumerate(targets)}
    run = {str(user): {str(item): 300.0 - at for at, item in enumerate(items)} for user, items in enumerate(lists)}
    names = {"MRR": RR} | {
        f"{n}@{k}": m @ k for n, m in (("HR", Success), ("recall", R), ("NDCG", nDCG)) for k in (10, 50)
    }
    theirs = ir_measures.calc_aggregate(list(names.values()), qrels, run)
    assert set(names) == set(ours)
    for name, measure in names.items():
        assert ours[name] == pytest.approx(theirs[measure], rel=1e-9), name


def test_oracle_and_chance() -> None:
    assert set(summarise(np.ones(7), [1, 50]).values()) == {1.0}
    ranks = np.random.default_rng(0).integers(1, 201, size=20_000).astype(float)
    metrics = summarise(ranks, [10])
    assert abs(metrics["HR@10"] - 10 / 200) < 5 * math.sqrt(0.05 * 0.95 / 20_000)
    gain = sum(1 / math.log2(1 + rank) for rank in range(1, 11)) / 200
    assert abs(metrics["NDCG@10"] - gain) < 0.005


@pytest.mark.parametrize(
    ("ranks", "k", "offsets", "message"),
    [
        (np.zeros(0), 10, None, r"at least one user, got the shape \(0,\)"),
        (np.ones((2, 2)), 10, None, r"the shape \(2, 2\)"),
        (np.array([1.0, 0.5]), 10, None, "1 of 2 ranks"),
        (np.array([np.nan, 2.0, 0.0]), 10, None, "2 of 3 ranks"),
        (np.ones(2), 0, None, "k 0"),
        (np.ones(2), 10, np.array([0, 1, 1, 2]), "1 of 3 users without a target"),
        (np.ones(2), 10, np.array([0, 1]), "offsets must rise from 0 to 2, got 0 to 1"),
    ],
)
def test_refuses(ranks: np.ndarray, k: int, offsets: np.ndarray | None, message: str) -> None:
    for metric in (hit_rate, recall, ndcg):
        with pytest.raises(ValueError, match=message):
            metric(ranks, k, offsets)
    with pytest.raises(ValueError, match=message):
        summarise(ranks, [k], offsets)
