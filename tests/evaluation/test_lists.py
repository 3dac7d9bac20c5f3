"""Metrics of all lists together, by hand and against slow definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learn_spark.evaluation.lists import list_metrics


def test_by_hand() -> None:
    # Item 0 has half of the 10 events: only it is head. Offers: item 0 twice, 1 once, 3 once.
    lists, counts = np.array([[0, 1], [0, 3]]), np.array([5, 3, 1, 1, 0])
    metrics = list_metrics(lists, counts)
    assert metrics["coverage@2"] == 3 / 5
    assert metrics["head@2"] == 2 / 4
    # Offers an item, rising: 0, 0, 1, 1, 2, with weights -4, -2, 0, 2, 4.
    assert metrics["Gini@2"] == pytest.approx((2 * 1 + 4 * 2) / (5 * 4))
    bits = [-math.log2(6 / 15)] * 2 + [-math.log2(4 / 15), -math.log2(2 / 15)]
    assert metrics["novelty@2"] == pytest.approx(sum(bits) / 4)


def test_bounds() -> None:
    counts = np.arange(8)
    everything = list_metrics(np.arange(8)[None], counts)
    assert everything["coverage@8"] == 1.0
    assert everything["Gini@8"] == pytest.approx(0.0, abs=1e-12)
    one = list_metrics(np.array([[3], [3], [3]]), counts)
    assert one["coverage@1"] == one["Gini@1"] - 6 / 8 == 1 / 8
    short = list_metrics(np.array([[3, -1], [-1, -1]]), counts)
    assert short["coverage@2"] == 1 / 8
    assert short["novelty@2"] == one["novelty@1"]


@settings(max_examples=100, deadline=None)
@given(
    lists=st.lists(st.lists(st.integers(0, 6), min_size=3, max_size=3, unique=True), min_size=1, max_size=6),
    counts=st.lists(st.integers(0, 9), min_size=7, max_size=7),
)
def test_agrees_with_slow_definitions(lists: list[list[int]], counts: list[int]) -> None:
    metrics = list_metrics(np.array(lists), np.array(counts))
    offers = [item for row in lists for item in row]
    offered = [offers.count(item) for item in range(7)]
    spread = sum(abs(a - b) for a in offered for b in offered)
    assert metrics["Gini@3"] == pytest.approx(spread / (2 * 7 * sum(offered)))
    assert metrics["coverage@3"] == len(set(offers)) / 7
    events = sum(counts)
    head = [c > 0 and sum(other for other in counts if other > c) < events / 2 for c in counts]
    assert metrics["head@3"] == pytest.approx(sum(head[item] for item in offers) / len(offers))
    bits = [-math.log2((counts[item] + 1) / (events + 7)) for item in offers]
    assert metrics["novelty@3"] == pytest.approx(sum(bits) / len(bits))


@pytest.mark.parametrize(
    ("lists", "message"),
    [([[-1, -1]], "1 users are all empty"), ([[0, 5]], r"0\.\.5 are outside -1\.\.4"), ([[-2, 0]], r"-2\.\.0")],
)
def test_refuses(lists: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list_metrics(np.array(lists), np.ones(5, dtype=np.int64))
