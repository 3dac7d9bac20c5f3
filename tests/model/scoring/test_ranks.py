"""Ranks by the stated tie rule: by hand, against the rule item by item, and where rounding would decide."""

from __future__ import annotations

import threading

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learn_spark.model.scoring import ranks as ranks_module
from learn_spark.model.scoring.catalogue import Catalogue
from learn_spark.model.scoring.ranks import BLOCK_ITEMS, BLOCK_USERS, TIE_TOLERANCE, ranks_from_vectors, ranks_in
from tests.model.scoring.dense import slow_ranks
from tests.model.scoring.vectors import NOTHING, make_vectors


def ranks_of(scores: list[float], targets: list[int], seen: list[np.ndarray]) -> list[float]:
    """Ranks of one target for each user, all users seeing the same scores."""
    users, items = np.ones((len(targets), 1)), np.array(scores)[:, None]
    return ranks_from_vectors(users, items, np.array(targets), seen).tolist()


def test_by_hand() -> None:
    seen = [NOTHING, NOTHING, NOTHING, np.array([0, 0, 1]), np.array([2, 4])]
    # 0 is best; 1 has two above and one equal; 3 is last of five, two of the above equal to each other only;
    # seen item 0 leaves one above, and the target 1 counts though seen; of 2 and 4 seen, only 0 is above.
    assert ranks_of([0.9, 0.5, 0.5, 0.1, 0.7], [0, 1, 3, 1, 1], seen) == [1.0, 3.5, 5.0, 2.5, 2.0]
    assert ranks_of([3.0, 2.0, 1.0], [2], [np.array([0, 0, 2, 2, 2])]) == [2.0]


def test_many_targets_by_hand() -> None:
    items = np.array([[5.0], [4.0], [4.0], [3.0], [2.0]])
    # Targets 1 and 2 tie with each other; target 4 has all others above it but the seen 3; the seen 1 is a target too.
    ranks = ranks_from_vectors(
        np.ones((2, 1)),
        items,
        np.array([1, 2, 4, 0]),
        [np.array([1, 3]), np.array([0, 1])],
        offsets=np.array([0, 3, 4]),
    )
    assert ranks.tolist() == [2.5, 2.5, 4.0, 1.0]


def test_scores_within_the_tolerance_are_the_same() -> None:
    users, t = np.array([[1.0, 1.0]]), TIE_TOLERANCE
    # Scores 0, +-0.9 and +-1.1 tolerances: two are the same as the first, one is above it.
    items = np.array([[0.5, -0.5], [0.5, 0.9 * t - 0.5], [0.5, -0.9 * t - 0.5]])
    items = np.concatenate([items, [[1.1 * t, 0.0], [-1.1 * t, 0.0]]])
    assert ranks_from_vectors(users, items, np.array([0]), [NOTHING]).tolist() == [1 + 1 + 0.5 * 2]


def test_rounding_of_large_finished_scores_is_no_difference() -> None:
    one = np.spacing(np.float32(40.0))  # 3.8e-6, above TIE_TOLERANCE
    scores = np.float32(40.0) + one * np.array([[0, 3, -4, -2, 5, -6]], np.float32)
    assert scores.dtype == np.float32
    assert ranks_in(scores, np.array([0])).tolist() == [1 + 1 + 0.5 * 3]
    assert ranks_in(scores - np.float32(40.0), np.array([0])).tolist() == [1 + 2]


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["random", "duplicated", "integer", "constant", "large", "large duplicated"]),
    users=st.integers(0, 12),
    items=st.integers(1, 90),
    width=st.integers(1, 9),
    most=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_agrees_with_the_rule_item_by_item(kind: str, users: int, items: int, width: int, most: int, seed: int) -> None:
    u, v = make_vectors(kind, users, items, width, seed)
    generator = np.random.default_rng(seed)
    counts = generator.integers(1, min(most, items) + 1, size=users)
    lists = [generator.permutation(items)[:count] for count in counts]
    targets, offsets = np.concatenate([NOTHING, *lists]), np.cumsum([0, *counts])
    seen = [generator.integers(0, items, size=generator.integers(0, items + 1)) for _ in range(users)]
    # Products summed in the order of the second look, so that scores at the very tolerance agree too.
    scores = (u[:, None, :].astype(np.float64) * v[None]).sum(axis=2)  # [users, items]
    with pytest.MonkeyPatch.context() as patch:  # blocks far smaller than the data
        patch.setattr(ranks_module, "BLOCK_ITEMS", 16)
        patch.setattr(ranks_module, "BLOCK_USERS", 3)
        ranks = ranks_from_vectors(u, v, targets, seen, offsets=offsets)
    assert ranks.dtype == np.float64
    assert ranks.tolist() == slow_ranks(scores, targets, seen, offsets)


def test_catalogues_wider_than_a_block_are_counted_whole() -> None:
    """Every item counts, at the seams of the blocks too: where items fall in score, the rank is the place."""
    size = 2 * BLOCK_ITEMS + 3
    items = -np.arange(size, dtype=np.float32)[:, None]
    places = np.array([0, 1, BLOCK_ITEMS - 1, BLOCK_ITEMS, 2 * BLOCK_ITEMS - 1, 2 * BLOCK_ITEMS, size - 1])
    users = np.ones((len(places), 1))
    ranks = ranks_from_vectors(users, items, places, [NOTHING] * len(places))
    assert ranks.tolist() == (places + 1.0).tolist()
    seen = [np.array([0, BLOCK_ITEMS - 1, BLOCK_ITEMS, size - 1])] * len(places)
    below = [(place > np.array([0, BLOCK_ITEMS - 1, BLOCK_ITEMS])).sum() for place in places]
    assert ranks_from_vectors(users, items, places, seen).tolist() == (places + 1.0 - below).tolist()


def test_ties_of_a_whole_catalogue_are_the_middle_of_it() -> None:
    for size in (51, BLOCK_ITEMS + 1):
        ranks = ranks_from_vectors(np.ones((3, 1)), np.zeros((size, 1)), np.array([0, 25, 50]), [NOTHING] * 3)
        assert (ranks == (size + 1) / 2).all()


@pytest.mark.parametrize("seed", range(3))
def test_rounding_decides_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products as wrong as float32 may be put the items almost in random order; the ranks stay exact."""
    generator = np.random.default_rng(seed)
    users, items = np.zeros((3, 64), np.float32), np.zeros((500, 64), np.float32)
    users[:, 0] = 1.0
    items[:, 0] = generator.permutation(500) * 4e-6
    items[:, 1] = 1000.0  # no user looks along it, but it widens the bound on rounding to 0.008
    slack = Catalogue(users, items).slack(np.array([0]))[0]
    multiply = np.matmul

    def noisy(*factors: np.ndarray, out: np.ndarray) -> np.ndarray:
        multiply(*factors, out=out)
        out += 0.5 * slack * generator.uniform(-1, 1, size=out.shape)
        return out

    order = np.argsort(-items[:, 0])
    monkeypatch.setattr(ranks_module.np, "matmul", noisy)
    ranks = ranks_from_vectors(users, items, order[[0, 4, 300]], [NOTHING] * 3)
    assert ranks.tolist() == [1.0, 5.0, 301.0]


def test_threads_and_blocks_change_nothing_and_all_users_are_reported() -> None:
    u, v = make_vectors("duplicated", 3 * BLOCK_USERS + 7, 400, 16, 5)
    generator = np.random.default_rng(1)
    counts = generator.integers(1, 4, size=len(u))
    targets = np.concatenate([generator.permutation(400)[:count] for count in counts])
    offsets, seen = np.cumsum([0, *counts]), [generator.integers(0, 400, size=9) for _ in u]
    calls: list[tuple[int, int]] = []

    def advance(count: int) -> None:
        calls.append((count, threading.get_ident()))

    one = ranks_from_vectors(u, v, targets, seen, offsets=offsets, threads=1)
    three = ranks_from_vectors(u, v, targets, seen, offsets=offsets, threads=3, advance=advance)
    assert np.array_equal(one, three)
    assert sum(count for count, _ in calls) == len(u)
    assert {thread for _, thread in calls} == {threading.get_ident()}
    for row in (0, BLOCK_USERS, len(u) - 1):
        targets_of_user = slice(offsets[row], offsets[row + 1])
        single = ranks_from_vectors(
            u[[row]],
            v,
            targets[targets_of_user],
            [seen[row]],
            offsets=np.array([0, targets_of_user.stop - targets_of_user.start]),
        )
        assert np.array_equal(single, one[targets_of_user])


def test_a_random_scorer_hits_by_chance_and_an_oracle_always() -> None:
    generator = np.random.default_rng(11)
    users, items = generator.normal(size=(4000, 8)), generator.normal(size=(50, 8))
    targets = generator.integers(0, 50, size=4000)
    chance = (ranks_from_vectors(users, items, targets, [NOTHING] * 4000) <= 10).mean()
    assert abs(chance - 10 / 50) < 5 * np.sqrt(0.2 * 0.8 / 4000)
    best = (users.astype(np.float32) @ items.T.astype(np.float32)).argmax(axis=1)
    assert (ranks_from_vectors(users, items, best, [NOTHING] * 4000) == 1.0).all()


def test_the_best_200_by_rank_are_those_of_exact_faiss_in_its_order() -> None:
    u, v = make_vectors("random", 300, 3000, 32, 8)
    index = faiss.IndexFlatIP(32)
    index.add(v)
    _, listed = index.search(u, 200)
    offsets = np.arange(0, 200 * 300 + 1, 200)
    ranks = ranks_from_vectors(u, v, listed.reshape(-1), [NOTHING] * 300, offsets=offsets).reshape(300, 200)
    # Where two scores are within the tolerance of ties FAISS has some order, and ours is half-way.
    apart = ranks == np.round(ranks)
    assert apart.mean() > 0.99
    assert (ranks == np.arange(1.0, 201.0))[apart].all()
    assert np.abs(ranks - np.arange(1.0, 201.0)).max() <= 0.5


@pytest.mark.parametrize(
    ("targets", "seen", "message"),
    [
        (np.array([3]), [NOTHING], r"target positions 3\.\.3 are outside the catalogue 0\.\.2"),
        (np.array([-1]), [NOTHING], "target positions -1"),
        (np.array([0]), [np.array([1, 7])], r"seen positions 1\.\.7"),
        (np.array([0]), [], "seen items of 0 users, expected 1"),
        (np.array([0, 1]), [NOTHING], r"expected targets \[1\] of 1 users, got \(2,\)"),
    ],
)
def test_refuses_positions_outside_the_catalogue(targets: np.ndarray, seen: list[np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ranks_from_vectors(np.zeros((1, 2)), np.zeros((3, 2)), targets, seen)


def test_refuses_vectors_that_are_not_finite_and_widths_that_differ() -> None:
    bad = np.zeros((3, 2))
    bad[2, 1] = np.inf
    with pytest.raises(ValueError, match="1 of 6 values of items are not finite"):
        ranks_from_vectors(np.zeros((1, 2)), bad, np.array([0]), [NOTHING])
    with pytest.raises(ValueError, match=r"\(1, 2\) and \(3, 4\)"):
        ranks_from_vectors(np.zeros((1, 2)), np.zeros((3, 4)), np.array([0]), [NOTHING])
