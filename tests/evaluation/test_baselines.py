"""Popularity and first-order Markov by hand, against slow counting, and against a dense matrix of scores."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learn_spark.evaluation import counts as counts_module
from learn_spark.evaluation.baselines.markov import markov
from learn_spark.evaluation.baselines.popularity import popularity
from learn_spark.evaluation.counts import CountScores
from tests.model.scoring.dense import slow_ranks

NOTHING = np.zeros(0, np.int64)


def _laid_end_to_end(histories: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    values = np.array([item for history in histories for item in history], dtype=np.int32)
    return values, np.cumsum([0, *(len(history) for history in histories)])


def _dense(scores: CountScores, contexts: list[int]) -> np.ndarray:
    """All scores [B, N], place by place."""
    dense = np.tile(scores.base, (len(contexts), 1))
    for row, context in enumerate(contexts):
        for place in range(scores.starts[context], scores.starts[context + 1]):
            dense[row, scores.following[place]] += scores.extra[place]
    return dense


# 0 -> 1 twice, 0 -> 2 once, 1 -> 0 once; the seam 1 | 2 between two users is no transition.
HISTORIES = [[0, 1, 0, 1], [2], [], [0, 2]]


def test_popularity_by_hand() -> None:
    scores = popularity(*_laid_end_to_end(HISTORIES), 4)
    assert _dense(scores, [0, 3]).tolist() == [[3, 2, 2, 0]] * 2
    ranks = scores.ranks(np.array([0, 0, 3]), np.array([1, 3, 2]), [NOTHING, np.array([0, 1, 1]), np.array([0, 2])])
    assert ranks.tolist() == [2.5, 2.0, 1.5]
    assert scores.top_k(np.array([0, 1]), 3, [NOTHING, np.array([1, 0])]).tolist() == [[0, 1, 2], [2, 3, -1]]


def test_markov_by_hand() -> None:
    scores = markov(*_laid_end_to_end(HISTORIES), 4)
    popular, after_0, after_1 = np.array([3, 2, 2, 0]), np.array([0, 2, 1, 0]), np.array([1, 0, 0, 0])
    expected = [popular + 8 * after_0, popular + 8 * after_1, popular, popular + 8 * after_0]
    assert _dense(scores, [0, 1, 3, 0]).tolist() == [row.tolist() for row in expected]
    # After 0: 18, 10 and 3 for items 1, 2 and 0.
    assert scores.ranks(np.array([0, 0, 1]), np.array([2, 0, 2]), [NOTHING] * 3).tolist() == [2.0, 3.0, 2.5]
    assert scores.top_k(np.array([0, 1]), 4, [NOTHING, np.array([0])]).tolist() == [[1, 2, 0, 3], [1, 2, 3, -1]]


@settings(max_examples=100, deadline=None)
@given(histories=st.lists(st.lists(st.integers(0, 6), max_size=8), max_size=10))
def test_markov_agrees_with_slow_counting(histories: list[list[int]]) -> None:
    values, offsets = _laid_end_to_end(histories)
    events = [item for history in histories for item in history]
    expected = np.zeros((7, 7), dtype=np.int64)
    for history in histories:
        for before, after in pairwise(history):
            expected[before, after] += 1 + len(events)
    expected += np.array([events.count(item) for item in range(7)])
    assert np.array_equal(_dense(markov(values, offsets, 7), list(range(7))), expected)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), n_items=st.integers(1, 9), block_pairs=st.sampled_from([1, 5, 1 << 22]))
def test_ranks_and_tops_are_those_of_a_dense_matrix(data: st.DataObject, n_items: int, block_pairs: int) -> None:
    item = st.integers(0, n_items - 1)
    histories = data.draw(st.lists(st.lists(item, max_size=8), max_size=8))
    users = data.draw(
        st.lists(
            st.tuples(item, st.lists(item, min_size=1, max_size=4, unique=True), st.lists(item, max_size=9)),
            max_size=5,
        )
    )
    contexts = np.array([context for context, _, _ in users], dtype=np.int64)
    targets = np.array([target for _, targets_of_user, _ in users for target in targets_of_user], dtype=np.int64)
    offsets = np.cumsum([0, *(len(targets_of_user) for _, targets_of_user, _ in users)])
    seen = [np.array(hidden, dtype=np.int64) for _, _, hidden in users]
    k = data.draw(st.integers(1, 10))
    for model in (popularity, markov):
        scores = model(*_laid_end_to_end(histories), n_items)
        dense = _dense(scores, contexts.tolist())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(counts_module, "BLOCK_PAIRS", block_pairs)
            ranks = scores.ranks(contexts, targets, seen, offsets=offsets)
        assert ranks.tolist() == slow_ranks(dense, targets, seen, offsets)
        for row, top in enumerate(scores.top_k(contexts, k, seen).tolist()):
            unseen = sorted(set(range(n_items)) - set(seen[row].tolist()), key=lambda i, row=row: (-dense[row, i], i))
            assert top == (unseen + [-1] * k)[:k]


def test_popularity_never_outweighs_one_transition() -> None:
    # Item 1 followed item 0 once; item 2 is all that anybody else ever took.
    scores = markov(*_laid_end_to_end([[0, 1], [2] * 3_000_000]), 3)
    assert scores.ranks(np.array([0, 0, 0]), np.array([1, 2, 0]), [NOTHING] * 3).tolist() == [1.0, 2.0, 3.0]


def test_large_catalogues_do_not_overflow_int32() -> None:
    last = 99_999
    scores = markov(np.array([last, last - 1], dtype=np.int32), np.array([0, 2], dtype=np.int32), last + 1)
    ranks = scores.ranks(np.array([last], dtype=np.int32), np.array([last - 1]), [NOTHING])
    assert ranks.tolist() == [1.0]


@pytest.mark.parametrize(
    ("values", "offsets", "message"),
    [
        ([0, 4], [0, 2], r"positions 0\.\.4 are outside 0\.\.3"),
        ([-1, 2], [0, 2], r"positions -1\.\.2"),
        ([0, 1], [0, 1], "offsets must go from 0 to 2"),
        ([0, 1], [1, 2], "offsets must go from 0 to 2"),
        ([0, 1], [0, 2, 1, 2], "offsets must not fall"),
        ([0, 1], [], "offsets must go from 0 to 2"),
    ],
)
def test_refuses_histories_that_do_not_fit(values: list[int], offsets: list[int], message: str) -> None:
    for model in (popularity, markov):
        with pytest.raises(ValueError, match=message):
            model(np.array(values), np.array(offsets, dtype=np.int64), 4)


def test_refuses_positions_outside_the_catalogue() -> None:
    scores = markov(*_laid_end_to_end(HISTORIES), 4)
    with pytest.raises(ValueError, match=r"contexts -1\.\.2 are outside 0\.\.3"):
        scores.ranks(np.array([-1, 2]), np.array([0, 0]), [NOTHING] * 2)
    with pytest.raises(ValueError, match=r"target positions 4\.\.4 are outside the catalogue 0\.\.3"):
        scores.ranks(np.array([0]), np.array([4]), [NOTHING])
