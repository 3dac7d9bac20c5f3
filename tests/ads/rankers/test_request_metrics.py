"""AUC and NDCG within requests, by hand and by a loop over requests."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from learn_spark.ads.rankers.request_metrics import RequestMetrics, ndcg_of, whole_requests


def test_by_hand() -> None:
    # Request 0: the conversion is second of three. 1: both are tied. 2 and -1 do not count.
    requests = np.array([0, 0, 0, 1, 1, 2, 2, -1, -1])
    scores = np.array([0.9, 0.5, 0.1, 0.4, 0.4, 0.3, 0.2, 0.9, 0.1])
    labels = np.array([0, 1, 0, 1, 0, 0, 0, 0, 1])
    metrics = RequestMetrics()
    metrics.add(scores, labels, requests)
    second = 1 / np.log2(3)
    expected = {"request AUC": (0.5 + 0.5) / 2, "request NDCG@10": (second + (1 + second) / 2) / 2}
    assert metrics.values() == pytest.approx(expected)
    assert RequestMetrics().values() == {}


def test_an_eleventh_place_gains_nothing() -> None:
    scores, requests = -np.arange(12.0), np.zeros(12, dtype=np.int64)
    for place, gain in ((0, 1.0), (9, 1 / np.log2(11)), (10, 0.0)):
        assert ndcg_of(scores, np.arange(12) == place, requests, 1) == pytest.approx([gain])


def test_parts_of_whole_requests_give_the_same_values() -> None:
    chance = np.random.default_rng(0)
    records = np.empty(500, np.dtype([("request", np.int64), ("score", np.float64), ("label", np.int8)]))
    records["request"] = np.sort(chance.integers(-1, 40, 500))
    records["score"], records["label"] = chance.integers(0, 5, 500), chance.random(500) < 0.3
    whole, parted = RequestMetrics(), RequestMetrics()
    whole.add(records["score"], records["label"], records["request"])
    parts = list(whole_requests(records[start : start + 7] for start in range(0, 500, 7)))
    assert np.array_equal(np.concatenate(parts), records)
    for part in parts:
        parted.add(part["score"], part["label"], part["request"])
    assert parted.values() == pytest.approx(whole.values())
    ends = [(part["request"][0], part["request"][-1]) for part in parts]
    assert all(last < first for (_, last), (first, _) in pairwise(ends))
