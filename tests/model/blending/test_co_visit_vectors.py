"""Vectors of co-visits: a graph worked out by hand, groups of items that occur together, and items that never do."""

from __future__ import annotations

import numpy as np
import pytest

from learn_spark.model.blending.co_visits import SMOOTHING, co_visit_vectors
from learn_spark.model.reranking.co_visitation import Transitions


def _transitions(histories: list[list[int]], items: int) -> Transitions:
    offsets = np.cumsum([0, *map(len, histories)])
    return Transitions.of(np.concatenate(histories), offsets, items, reach=2, decay=0.5)


def test_two_items_of_one_pair_by_hand() -> None:
    # A has one pair of weight 3 (three users), so that D^-1/2 A D^-1/2 has the eigenvalues +-3 / (3 + SMOOTHING), and
    # the leading eigenvector (1, 1) / sqrt(2): both items have the same vector of length 1, the third has none.
    vectors = co_visit_vectors(_transitions([[0, 1], [1, 0], [0, 1]], 3), 2)
    assert vectors.dtype == np.float32
    assert np.abs(vectors[:2]) == pytest.approx(np.array([[1.0, 0.0], [1.0, 0.0]]), abs=1e-6)
    assert vectors[0] @ vectors[1] == pytest.approx(1.0)
    assert not vectors[2].any()
    assert SMOOTHING > 0


def test_inner_products_are_those_of_the_graphs_own_decomposition() -> None:
    chance = np.random.default_rng(2)
    histories = [list(chance.integers(0, 25, 6)) for _ in range(40)]
    transitions = _transitions(histories, 26)  # item 25 occurs in no history
    graph = np.zeros((26, 26))
    for history in histories:
        for first in range(6):
            for second in range(first + 1, min(first + 3, 6)):
                weight = 0.5 ** (second - first - 1)
                graph[history[first], history[second]] += weight
                graph[history[second], history[first]] += weight
    scale = 1 / np.sqrt(graph.sum(axis=1) + SMOOTHING)
    values, columns = np.linalg.eigh(graph * scale[:, None] * scale)
    leading = np.argsort(-values)[:4]
    expected = columns[:, leading] * np.sqrt(values[leading])
    expected[:25] /= np.linalg.norm(expected[:25], axis=1, keepdims=True)
    expected[25] = 0.0
    vectors = co_visit_vectors(transitions, 4)  # by Lanczos
    assert vectors @ vectors.T == pytest.approx(expected @ expected.T, abs=1e-4)
    assert np.array_equal(vectors, co_visit_vectors(transitions, 4))
    every = co_visit_vectors(transitions, 30)  # wider than the graph has eigenvectors
    assert every.shape == (26, 30)
    assert np.linalg.norm(every[:25], axis=1) == pytest.approx(np.ones(25), abs=1e-5)
    assert not every[25].any()


def test_items_of_one_group_are_near_each_other_and_far_from_those_of_another() -> None:
    chance = np.random.default_rng(3)
    histories = [list(chance.permutation(10)[:4] + 10 * group) for group in (0, 1) for _ in range(60)]
    products = (vectors := co_visit_vectors(_transitions(histories, 20), 2)) @ vectors.T
    assert products[:10, :10].min() > 0.9
    assert np.abs(products[:10, 10:]).max() < 0.1


def test_without_a_pair_there_are_zeros() -> None:
    assert not co_visit_vectors(_transitions([[0], [1]], 4), 3).any()
