"""The ads ranker: metrics against slow versions, no exposure from before the release, features that help do help."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from learn_spark.errors import LearnSparkError
from learn_spark.ranking.exposures import build_exposures, split_by_time
from learn_spark.ranking.metrics import auc, log_loss, user_auc
from learn_spark.ranking.ranker import score, train_ranker
from learn_spark.settings.schema import Ranking
from learn_spark.tables.contracts import contract

AS_OF = datetime(2024, 1, 1, tzinfo=UTC)


def slow_auc(scores: Any, labels: Any) -> float:
    pairs = list(itertools.product(scores[labels == 1], scores[labels == 0]))
    return sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)


def test_auc_against_all_pairs() -> None:
    chance = np.random.default_rng(0)
    for _ in range(20):
        scores, labels = chance.integers(0, 6, 40) / 5, chance.integers(0, 2, 40)
        assert auc(scores, labels) == pytest.approx(slow_auc(scores, labels), abs=1e-12)
    assert auc(np.array([1, 2, 3]), np.array([0, 1, 1])) == 1.0
    assert np.isnan(auc(np.array([1.0, 2.0]), np.array([1, 1])))


def test_user_auc_leaves_out_users_of_one_class() -> None:
    scores, labels = np.array([0.9, 0.1, 0.2, 0.8, 0.5]), np.array([1, 0, 1, 0, 1])
    users = ["a", "a", "b", "b", "only"]
    assert user_auc(scores, labels, users) == (1.0 + 0.0) / 2
    assert np.isnan(user_auc(scores[4:], labels[4:], users[4:]))


def test_log_loss_by_hand() -> None:
    assert log_loss(np.array([0.5, 0.25]), np.array([1, 0])) == pytest.approx((np.log(2) - np.log(0.75)) / 2)
    assert log_loss(np.array([0.0]), np.array([1])) == pytest.approx(-np.log(1e-12))


def log(rows: list[tuple[str, str, str, int, float | None]]) -> pa.Table:
    columns = [
        {
            "event_id": event,
            "user_id": user,
            "item_id": item,
            "event_type": "rating",
            "value": value,
            "event_time": AS_OF + timedelta(seconds=second),
            "event_date": (AS_OF + timedelta(seconds=second)).date(),
        }
        for event, user, item, second, value in rows
    ]
    return pa.Table.from_pylist(columns, schema=contract("interactions").arrow_schema())


def features(kind: str, vectors: dict[str, list[float]]) -> pa.Table:
    rows = [{"release_id": "r", f"{kind}_id": k, "embedding": v, "as_of": AS_OF} for k, v in vectors.items()]
    return pa.Table.from_pylist(rows, schema=contract(f"{kind}_features").arrow_schema())


USERS, ITEMS = features("user", {"u": [1.0, 0.0]}), features("item", {"i": [0.0, 1.0]})


def build(interactions: pa.Table, users: pa.Table = USERS, items: pa.Table = ITEMS) -> Any:
    return build_exposures(interactions, users, items, as_of=AS_OF, positive_value=4, buckets=64)


def test_nothing_from_before_the_release_is_ranked() -> None:
    rows = [("e1", "u", "i", -1, 5.0), ("e2", "u", "i", 0, 5.0), ("e3", "new", "i", 7200, 3.0)]
    rows.append(("e4", "u", "new", 9000, None))
    exposures = build(log(rows))
    assert exposures.event_id == ["e2", "e3", "e4"]
    assert exposures.label.tolist() == [1, 0, 0]
    assert exposures.user.tolist() == [[1, 0], [0, 0], [1, 0]]
    assert exposures.item.tolist() == [[0, 1], [0, 1], [0, 0]]
    assert exposures.has_user.tolist() == [1, 0, 1]
    assert exposures.has_item.tolist() == [1, 1, 0]
    # 2024-01-01 is a Monday: weekday 0, hour 0; two hours later is a twelfth of the day's circle.
    assert exposures.context[0] == pytest.approx([0, 1, 0, 1])
    assert exposures.context[1][:2] == pytest.approx([np.sin(np.pi / 6), np.cos(np.pi / 6)], abs=1e-6)
    with pytest.raises(LearnSparkError, match="already in its features"):
        build(log(rows[:1]))


def test_the_split_keeps_an_instant_together() -> None:
    exposures = build(log([(f"e{n}", "u", "i", n // 4, 5.0) for n in range(12)]))
    train, test = split_by_time(exposures, 0.5)
    assert (len(train), len(test)) == (4, 8)
    assert train.time.max() < test.time.min()
    with pytest.raises(LearnSparkError, match="cannot be split by time"):
        split_by_time(build(log([(f"e{n}", "u", "i", 0, 5.0) for n in range(5)])), 0.5)


def test_features_that_tell_the_answer_help_and_are_ignored_without_the_adaptor() -> None:
    chance = random.Random(0)
    users = {f"u{n}": [1.0, 0.0] if n % 2 else [0.0, 1.0] for n in range(400)}
    items = {f"i{n}": [1.0, 0.0] if n % 2 else [0.0, 1.0] for n in range(400)}
    rows = []
    for n in range(3000):
        user, item = chance.randrange(400), chance.randrange(400)
        rows.append((f"e{n:05}", f"u{user}", f"i{item}", n * 60, 5.0 if user % 2 == item % 2 else 1.0))
    exposures = build(log(rows), features("user", users), features("item", items))
    train, test = split_by_time(exposures, 0.7)
    settings = Ranking(epochs=15, learning_rate=5e-3, batch_size=128)
    without = auc(score(train_ranker(train, settings, adaptor=False), test), test.label)
    ranker = train_ranker(train, settings, adaptor=True)
    scores = score(ranker, test)
    assert auc(scores, test.label) > 0.95 > without + 0.2
    assert np.array_equal(scores, score(train_ranker(train, settings, adaptor=True), test))
    assert ((scores > 0) & (scores < 1)).all()
