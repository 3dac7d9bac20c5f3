"""The top of the catalogue: a full sort by exact scores, however the search rounds and wherever ties end it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learn_spark.model.scoring import top_k as module
from learn_spark.model.scoring.catalogue import Catalogue
from learn_spark.model.scoring.ranks import ranks_from_vectors
from learn_spark.model.scoring.top_k import top_k
from tests.model.scoring.vectors import NOTHING, make_vectors


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
    u, v = make_vectors(kind, users, items, 7, seed)
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
    slack = Catalogue(users, items).slack(np.arange(3))[0]

    def search(items: np.ndarray, rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        scores = items[:, 0] + 0.5 * slack * generator.uniform(-1, 1, size=(len(rows), 500))
        best = np.argsort(-scores, axis=1)[:, :size]
        return np.take_along_axis(scores, best, axis=1), best

    monkeypatch.setattr(module, "search", search)
    order = np.argsort(-items[:, 0])
    _, positions = top_k(users, items, 5, [NOTHING] * 3)
    assert positions.tolist() == [order[:5].tolist()] * 3


def _recorded_searches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    calls: list[tuple[int, int]] = []
    search = module.search

    def recorded(items: np.ndarray, rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        calls.append((len(rows), size))
        return search(items, rows, size)

    monkeypatch.setattr(module, "search", recorded)
    return calls


def test_search_grows_only_for_those_it_cannot_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _recorded_searches(monkeypatch)
    items = np.ones((1000, 2), dtype=np.float32)
    items[:, 0] = np.arange(1000)
    # The first user orders all items; to the second they are all the same, and the first of them are its top.
    _, positions = top_k(np.eye(2), items, 10, [NOTHING, NOTHING])
    assert positions.tolist() == [list(range(999, 989, -1)), list(range(10))]
    assert calls == [(2, 26), (1, 104), (1, 416), (1, 1000)]


def test_one_long_history_does_not_lengthen_every_search(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _recorded_searches(monkeypatch)
    items = np.arange(1000, dtype=np.float32)[:, None]
    seen = [np.arange(500, 999), NOTHING, NOTHING, np.arange(3)]
    _, positions = top_k(np.ones((4, 1)), items, 2, seen, batch=2)
    assert positions.tolist() == [[999, 499], [999, 998], [999, 998], [999, 998]]
    assert calls == [(2, 18), (2, 517)]


def test_ranks_and_top_k_tell_one_story() -> None:
    u, v = make_vectors("random", 40, 500, 16, 3)
    seen = [np.random.default_rng(i).integers(0, 500, size=30) for i in range(40)]
    done: list[int] = []
    _, positions = top_k(u, v, 20, seen, batch=16, advance=done.append)
    assert done == [16, 16, 8]
    for place in (0, 7, 19):
        assert ranks_from_vectors(u, v, positions[:, place], seen).tolist() == [place + 1.0] * 40


def test_refuses() -> None:
    users, items = np.zeros((1, 2)), np.zeros((3, 2))
    with pytest.raises(ValueError, match="k 0"):
        top_k(users, items, 0, [NOTHING])
    with pytest.raises(ValueError, match=r"\(1, 2\) and \(3, 4\)"):
        top_k(users, np.zeros((3, 4)), 1, [NOTHING])
    with pytest.raises(ValueError, match="1 of 6 values of users are not finite"):
        top_k(np.array([[0, 0], [0, np.inf], [0, 0]]), items, 1, [NOTHING] * 3)
