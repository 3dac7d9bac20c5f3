"""Popularity and first-order Markov by hand and against slow counting."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learn_spark.retrieval.markov import Markov
from learn_spark.retrieval.popularity import Popularity
from learn_spark.retrieval.ranks import ranks_from_scores


def _laid_end_to_end(histories: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    values = np.array([item for history in histories for item in history], dtype=np.int32)
    return values, np.cumsum([0, *(len(history) for history in histories)])


# 0 -> 1 twice, 0 -> 2 once, 1 -> 0 once; the seam 1 | 2 between two users is no transition.
HISTORIES = [[0, 1, 0, 1], [2], [], [0, 2]]


def test_popularity_by_hand() -> None:
    popularity = Popularity.fit(*_laid_end_to_end(HISTORIES), 4)
    assert popularity.scores(2).tolist() == [[3.0, 2.0, 2.0, 0.0]] * 2
    assert popularity.scores([np.array([1]), np.array([2]), np.array([3])]).shape == (3, 4)


def test_markov_by_hand() -> None:
    markov = Markov.fit(*_laid_end_to_end(HISTORIES), 4)
    share, first = np.array([3, 2, 2, 0]) / 8, np.array([0, 2, 1, 0])
    np.testing.assert_allclose(
        markov.scores(np.array([0, 1, 3, 0])),
        [share + first, share + np.array([1, 0, 0, 0]), share, share + first],
    )


@settings(max_examples=100, deadline=None)
@given(histories=st.lists(st.lists(st.integers(0, 6), max_size=8), max_size=10))
def test_markov_agrees_with_slow_counting(histories: list[list[int]]) -> None:
    values, offsets = _laid_end_to_end(histories)
    expected = np.zeros((7, 7))
    for history in histories:
        for before, after in pairwise(history):
            expected[before, after] += 1
    events = [item for history in histories for item in history]
    expected += np.array([events.count(item) for item in range(7)]) / (1 + len(events))
    np.testing.assert_allclose(Markov.fit(values, offsets, 7).scores(np.arange(7)), expected)


def test_popularity_never_outweighs_one_transition() -> None:
    # Item 1 followed item 0 once; item 2 is all that anybody else ever took.
    markov = Markov.fit(*_laid_end_to_end([[0, 1], [2] * 10_000]), 3)
    scores = markov.scores(np.array([0]))[0]
    assert scores[1] > scores[2] > scores[0] > 0
    assert ranks_from_scores(scores[None], np.array([1]), [np.zeros(0, np.int64)]).tolist() == [1.0]


def test_large_catalogues_do_not_overflow_int32() -> None:
    last = 99_999
    markov = Markov.fit(np.array([last, last - 1], dtype=np.int32), np.array([0, 2], dtype=np.int32), last + 1)
    assert markov.scores(np.array([last], dtype=np.int32))[0, last - 1] == pytest.approx(1 + 1 / 3)


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
    for model in (Popularity, Markov):
        with pytest.raises(ValueError, match=message):
            model.fit(np.array(values), np.array(offsets, dtype=np.int64), 4)


def test_refuses_last_items_outside_the_catalogue() -> None:
    markov = Markov.fit(*_laid_end_to_end(HISTORIES), 4)
    with pytest.raises(ValueError, match=r"positions -1\.\.2 are outside 0\.\.3"):
        markov.scores(np.array([-1, 2]))
