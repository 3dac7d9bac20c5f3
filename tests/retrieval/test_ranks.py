"""Ranks by the stated tie rule, the same from dense scores and from a search; the top of the catalogue."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learn_spark.retrieval import ranks as ranks_module
from learn_spark.retrieval.ranks import TIE_TOLERANCE, ranks_from_scores, ranks_from_vectors, top_k

NOTHING = np.zeros(0, dtype=np.int64)


def slow_rank(scores: np.ndarray, target: int, seen: np.ndarray) -> float:
    """The rule, item by item."""
    rank = 1.0
    for item, score in enumerate(scores):
        if item == target or item in set(seen.tolist()):
            continue
        if abs(float(score) - float(scores[target])) <= TIE_TOLERANCE:
            rank += 0.5
        elif score > scores[target]:
            rank += 1.0
    return rank


def test_rank_by_hand() -> None:
    scores = np.array([[0.9, 0.5, 0.5, 0.1, 0.7]] * 5)
    targets = np.array([0, 1, 3, 1, 1])
    seen = [NOTHING, NOTHING, NOTHING, np.array([0, 0, 1]), np.array([2, 4])]
    # 0 is best; 1 has two above and one equal; 3 is last of five, two of the above equal to each other only;
    # seen item 0 leaves one above, and the target 1 counts though seen; of 2 and 4 seen, only 0 is above.
    assert ranks_from_scores(scores, targets, seen).tolist() == [1.0, 3.5, 5.0, 2.5, 2.0]


def test_scores_within_the_tolerance_are_the_same() -> None:
    scores = np.array([[0.5, 0.5 + 0.9e-6, 0.5 - 0.9e-6, 0.5 + 1.1e-6, 0.5 - 1.1e-6]])
    assert ranks_from_scores(scores, np.array([0]), [NOTHING]).tolist() == [1 + 1 + 0.5 * 2]


def _vectors(kind: str, users: int, items: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    u: np.ndarray
    v: np.ndarray
    if kind == "integer":  # few scores, exact in float32: most items tie
        u = generator.integers(-2, 3, size=(users, width))
        v = generator.integers(-2, 3, size=(items, width))
    elif kind == "constant":
        u, v = generator.normal(size=(users, width)), np.ones((items, width))
    else:
        u, v = generator.normal(size=(users, width)), generator.normal(size=(items, width))
        if "duplicated" in kind:  # every vector stands about four times in the catalogue
            v = v[generator.integers(0, max(1, items // 4), size=items)]
        if "large" in kind:  # rounding in float32 is beyond the tolerance of ties
            u, v = u * 100, v * 100
    return u.astype(np.float32), v.astype(np.float32)


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(["random", "duplicated", "integer", "constant", "large", "large duplicated"]),
    users=st.integers(0, 12),
    items=st.integers(1, 150),
    width=st.integers(1, 9),
    depth=st.integers(1, 60),
    batch=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_both_ways_agree(kind: str, users: int, items: int, width: int, depth: int, batch: int, seed: int) -> None:
    u, v = _vectors(kind, users, items, width, seed)
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, items, size=users)
    seen = [generator.integers(0, items, size=generator.integers(0, items + 1)) for _ in range(users)]
    # Products summed in the order of the search's own second look, so that scores at the very tolerance agree too.
    scores = (u[:, None, :].astype(np.float64) * v[None]).sum(axis=2)  # [users, items]
    dense = ranks_from_scores(scores, targets, seen)
    for row in range(users):
        assert dense[row] == slow_rank(scores[row], int(targets[row]), seen[row])
    found = ranks_from_vectors(u, v, targets, seen, depth=depth, batch=batch)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, np.where(dense <= depth, dense, np.inf))


def test_float32_scores_of_a_blocked_product_agree_too() -> None:
    # The dense path is given what a matrix product gives; the same vectors differ there in their last bits.
    u, v = _vectors("duplicated", 300, 3000, 64, 5)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    targets = np.random.default_rng(0).integers(0, 3000, size=300)
    targets[:150] = (u[:150] @ v.T).argmax(axis=1)
    seen = [NOTHING] * 300
    dense = ranks_from_scores(u @ v.T, targets, seen)
    assert (dense % 1 == 0.5).any()
    found = ranks_from_vectors(u, v, targets, seen, depth=50)
    np.testing.assert_array_equal(found, np.where(dense <= 50, dense, np.inf))
    assert np.isfinite(found[:150]).all()
    assert np.isinf(found).any()


def _recorded_searches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    calls: list[tuple[int, int]] = []
    search = ranks_module._Catalogue.search

    def recorded(self: ranks_module._Catalogue, rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        calls.append((len(rows), size))
        return search(self, rows, size)

    monkeypatch.setattr(ranks_module._Catalogue, "search", recorded)
    return calls


def test_search_grows_only_for_those_it_cannot_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _recorded_searches(monkeypatch)
    items = np.ones((1000, 1), dtype=np.float32)
    items[0] = 2.0
    items[60:] = 0.5
    users = np.ones((2, 1), dtype=np.float32)
    # Item 0 is first at a glance. Item 5 ties with 58 others: rank 2 + 29, within the depth, past the first search.
    found = ranks_from_vectors(users, items, np.array([0, 5]), [NOTHING, NOTHING], depth=40)
    assert found.tolist() == [1.0, 31.0]
    assert calls == [(2, 56), (1, 224)]


def test_ties_just_below_the_target_are_all_waited_for() -> None:
    items = np.full((200, 1), 0.5, dtype=np.float32)
    items[:101] = 1.0 - 0.5e-6
    items[7] = 1.0
    # 100 others are the same within the tolerance, though the first search holds 76 and ends below the target.
    found = ranks_from_vectors(np.ones((1, 1)), items, np.array([7]), [NOTHING], depth=60)
    assert found.tolist() == [51.0]


def test_a_target_far_down_takes_one_search(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _recorded_searches(monkeypatch)
    items = np.arange(1000, dtype=np.float32)[:, None]
    found = ranks_from_vectors(np.ones((1, 1)), items, np.array([0]), [NOTHING], depth=10)
    assert found.tolist() == [np.inf]
    assert calls == [(1, 26)]


def test_one_long_history_does_not_lengthen_every_search(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _recorded_searches(monkeypatch)
    items = np.arange(1000, dtype=np.float32)[:, None]
    seen = [np.arange(500, 999), NOTHING, NOTHING, np.arange(3)]
    found = ranks_from_vectors(np.ones((4, 1)), items, np.array([499, 999, 998, 990]), seen, depth=10, batch=2)
    assert found.tolist() == [2.0, 1.0, 2.0, 10.0]
    assert calls == [(2, 26), (2, 525)]


def test_a_seen_target_still_counts_and_seen_items_never_do() -> None:
    items = np.array([[3.0], [2.0], [1.0]], dtype=np.float32)
    seen = [np.array([0, 0, 2, 2, 2])]
    assert ranks_from_vectors(np.ones((1, 1)), items, np.array([2]), seen, depth=3).tolist() == [2.0]


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(["random", "duplicated", "integer", "constant", "large duplicated"]),
    users=st.integers(0, 8),
    items=st.integers(1, 120),
    k=st.integers(1, 30),
    batch=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_top_k_is_a_full_sort(kind: str, users: int, items: int, k: int, batch: int, seed: int) -> None:
    u, v = _vectors(kind, users, items, 7, seed)
    generator = np.random.default_rng(seed)
    seen = [generator.integers(0, items, size=generator.integers(0, items + 1)) for _ in range(users)]
    scores, positions = top_k(u, v, k, seen, batch=batch)
    assert scores.shape == positions.shape == (users, k)
    for row in range(users):
        # Sums in float64 of duplicated vectors are equal, so a sort by (-score, position) has one answer.
        exact = [float((u[row].astype(np.float64) * vector).sum()) for vector in v]
        unseen = sorted(set(range(items)) - set(seen[row].tolist()), key=lambda i: (-exact[i], i))[:k]
        assert positions[row].tolist() == unseen + [-1] * (k - len(unseen))
        np.testing.assert_allclose(scores[row, : len(unseen)], [exact[i] for i in unseen], rtol=1e-5, atol=1e-6)
        assert (scores[row, len(unseen) :] == -np.inf).all()


@pytest.mark.parametrize("k", [1, 5, 150])
def test_ties_at_the_end_of_top_k_are_broken_by_position(k: int) -> None:
    generator = np.random.default_rng(k)
    items = generator.integers(0, 2, size=(3000, 1)).astype(np.float32)  # about 1,500 items are first
    users = np.ones((30, 1), dtype=np.float32)
    _, positions = top_k(users, items, k, [NOTHING] * 30)
    assert (positions == np.flatnonzero(items[:, 0])[:k]).all()


@pytest.mark.parametrize("seed", range(5))
def test_rounding_in_the_search_decides_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search as wrong as float32 may be puts the items almost in random order; the answers stay exact."""
    generator = np.random.default_rng(seed)
    users, items = np.zeros((3, 64), np.float32), np.zeros((500, 64), np.float32)
    users[:, 0] = 1.0
    items[:, 0] = generator.permutation(500) * 4e-6
    items[:, 1] = 1000.0  # no user looks along it, but it widens the bound on rounding to 0.008

    def search(self: ranks_module._Catalogue, rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        noise = 0.5 * self.slack(rows)[:, None] * generator.uniform(-1, 1, size=(len(rows), 500))
        scores = items[:, 0] + noise
        best = np.argsort(-scores, axis=1)[:, :size]
        return np.take_along_axis(scores, best, axis=1), best

    monkeypatch.setattr(ranks_module._Catalogue, "search", search)
    order = np.argsort(-items[:, 0])
    _, positions = top_k(users, items, 5, [NOTHING] * 3)
    assert positions.tolist() == [order[:5].tolist()] * 3
    found = ranks_from_vectors(users, items, order[[0, 4, 11]], [NOTHING] * 3, depth=10)
    assert found.tolist() == [1.0, 5.0, np.inf]


def test_ranks_and_top_k_tell_one_story() -> None:
    u, v = _vectors("random", 40, 500, 16, 3)
    seen = [np.random.default_rng(i).integers(0, 500, size=30) for i in range(40)]
    _, positions = top_k(u, v, 20, seen)
    for place in (0, 7, 19):
        found = ranks_from_vectors(u, v, positions[:, place], seen, depth=20)
        assert found.tolist() == [place + 1.0] * 40


def test_a_random_scorer_hits_by_chance_and_an_oracle_always() -> None:
    generator = np.random.default_rng(11)
    scores = generator.random((4000, 50))
    targets = generator.integers(0, 50, size=4000)
    seen = [NOTHING] * 4000
    chance = (ranks_from_scores(scores, targets, seen) <= 10).mean()
    assert abs(chance - 10 / 50) < 5 * np.sqrt(0.2 * 0.8 / 4000)
    scores[np.arange(4000), targets] = 2.0
    assert (ranks_from_scores(scores, targets, seen) == 1.0).all()
    # A scorer that knows nothing is not rewarded for it: all tied is the middle of the catalogue.
    assert (ranks_from_scores(np.zeros((3, 51)), np.array([0, 25, 50]), [NOTHING] * 3) == 26.0).all()


@pytest.mark.parametrize(
    ("targets", "seen", "message"),
    [
        (np.array([3]), [NOTHING], r"target positions 3\.\.3 are outside the catalogue 0\.\.2"),
        (np.array([-1]), [NOTHING], "target positions -1"),
        (np.array([0]), [np.array([1, 7])], r"seen positions 1\.\.7"),
        (np.array([0]), [], "1 users, but seen items of 0"),
        (np.array([0, 1]), [NOTHING], r"expected targets \[1\], got \(2,\)"),
    ],
)
def test_refuses_positions_outside_the_catalogue(targets: np.ndarray, seen: list[np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ranks_from_scores(np.zeros((1, 3)), targets, seen)
    with pytest.raises(ValueError, match=message):
        ranks_from_vectors(np.zeros((1, 2)), np.zeros((3, 2)), targets, seen, depth=1)


def test_refuses_scores_and_vectors_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="1 of 3 scores"):
        ranks_from_scores(np.array([[0.0, np.nan, 1.0]]), np.array([0]), [NOTHING])
    bad = np.zeros((3, 2))
    bad[2, 1] = np.inf
    with pytest.raises(ValueError, match="1 of 6 values of items not finite"):
        ranks_from_vectors(np.zeros((1, 2)), bad, np.array([0]), [NOTHING], depth=1)
    with pytest.raises(ValueError, match="1 of 6 values of users not finite"):
        top_k(bad, np.zeros((3, 2)), 1, [NOTHING] * 3)


def test_refuses_sizes_below_one_and_widths_that_differ() -> None:
    users, items = np.zeros((1, 2)), np.zeros((3, 2))
    with pytest.raises(ValueError, match="depth 0 and batch 5"):
        ranks_from_vectors(users, items, np.array([0]), [NOTHING], depth=0, batch=5)
    with pytest.raises(ValueError, match="k 0"):
        top_k(users, items, 0, [NOTHING])
    with pytest.raises(ValueError, match=r"\(1, 2\) and \(3, 4\)"):
        top_k(users, np.zeros((3, 4)), 1, [NOTHING])
