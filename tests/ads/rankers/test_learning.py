"""What rankers learn: features for cold items and nothing else, calibrated rates under sampling, the same again."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from learn_spark.ads.rankers.calibration import Calibration
from learn_spark.ads.rankers.fit import best_check, losses_of, shape_of, train_network
from learn_spark.ads.rankers.inputs import Inputs
from learn_spark.ads.rankers.metrics import auc, calibration, log_loss
from learn_spark.ads.rankers.store import Ranker
from learn_spark.ads.rankers.trees import train_trees
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.ads import RankingSettings, TreesSettings
from tests.ads.rankers.ads_world import tastes
from tests.ads.rankers.rankings import inputs, ranking, score_network, score_trees

USERS, ITEMS, DIMS = 40, 200, 3
KNOWN_ITEMS = 100  # the rest comes in the test alone, as row 0 of the embeddings


def world_of_tastes(rows: int = 5000) -> tuple[Inputs, Inputs, Inputs, np.ndarray]:
    """(train, validation, test, which test exposures have a cold item): an exposure converts by the angle between
    user and item alone, so that the ID of an item that was not in training has no information.
    """
    chance = np.random.default_rng(0)
    vectors = np.concatenate([np.zeros((1, DIMS)), tastes(USERS, DIMS, 1), tastes(ITEMS, DIMS, 2)])
    user = chance.integers(0, USERS, rows)
    item = np.where(
        np.arange(rows) < rows * 0.8, chance.integers(0, KNOWN_ITEMS, rows), chance.integers(0, ITEMS, rows)
    )
    affinity = (vectors[1 + user] * vectors[1 + USERS + item]).sum(axis=1)
    label = chance.random(rows) < 1 / (1 + np.exp(-8 * affinity))
    known = np.where(item < KNOWN_ITEMS, 2 + item, 0)
    every = inputs(np.stack([2 + user, known], axis=1), label, user=1 + user, item=1 + USERS + item, vectors=vectors)
    at = np.arange(rows)
    train, validation, test = (at < rows * 0.7), (at >= rows * 0.7) & (at < rows * 0.8), at >= rows * 0.8
    return every.take(train), every.take(validation), every.take(test), known[test] == 0


SIZES = [2 + USERS, 2 + KNOWN_ITEMS]


def trained(variant: str, parts: tuple[Inputs, ...], settings: RankingSettings, seed: int = 1) -> Any:
    shape = shape_of(variant, SIZES, parts[0].vectors.shape[1], settings)
    return train_network(shape, parts[0], parts[1], settings, seed)


@pytest.mark.parametrize("model", ["mlp", "dcn_v2"])
def test_only_the_features_tell_of_cold_items(model: str) -> None:
    *parts, cold = world_of_tastes()
    test, settings = parts[2], ranking(model=model)
    auc_of_cold = {}
    for variant in ("base", "learn", "learn-adaptor"):
        network, checks = trained(variant, tuple(parts), settings)
        scores = score_network(network, test)
        assert ((scores > 0) & (scores < 1)).all()
        auc_of_cold[variant] = auc(scores[cold], test.label[cold], test.weight[cold])
        # The network is that of the check that validation chose.
        assert best_check(checks).calibrated == min(check.calibrated for check in checks)
        best = best_check(checks).validation
        assert losses_of(network, parts[1]) == pytest.approx((best, best_check(checks).calibrated), abs=1e-9)
        assert log_loss(score_network(network, parts[1]), parts[1].label, parts[1].weight) == pytest.approx(
            best, abs=1e-6
        )
    assert cold.sum() > 300
    assert abs(auc_of_cold["base"] - 0.5) < 0.06, auc_of_cold
    assert auc_of_cold["learn"] > 0.9, auc_of_cold
    assert auc_of_cold["learn-adaptor"] > 0.85, auc_of_cold


def test_trees_too_and_by_the_dot_product() -> None:
    train, validation, test, cold = world_of_tastes()
    auc_of_cold = {}
    for variant in ("gbdt", "gbdt-learn"):
        trees, rounds = train_trees(variant, train, validation, ranking(), 1)
        assert 1 <= rounds <= 60
        scores = score_trees(trees, test)
        auc_of_cold[variant] = auc(scores[cold], test.label[cold], test.weight[cold])
        assert np.array_equal(scores, score_trees(train_trees(variant, train, validation, ranking(), 1)[0], test))
    assert abs(auc_of_cold["gbdt"] - 0.5) < 0.06, auc_of_cold
    assert auc_of_cold["gbdt-learn"] > 0.85, auc_of_cold


def test_where_vectors_are_masked_the_variants_know_no_more_than_base() -> None:
    train, validation, test, cold = world_of_tastes()
    hidden = [replace(x, user=0 * x.user, item=0 * x.item) for x in (train, validation, test)]
    for variant in ("learn", "learn-adaptor"):
        scores = score_network(trained(variant, tuple(hidden), ranking())[0], hidden[2])
        assert abs(auc(scores[cold], test.label[cold], test.weight[cold]) - 0.5) < 0.06


def test_the_same_seed_gives_the_same_scores_and_another_does_not() -> None:
    *parts, _ = world_of_tastes(2000)
    settings = ranking(epochs=2)
    first, again, other = (
        score_network(trained("learn-adaptor", tuple(parts), settings, s)[0], parts[2]) for s in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


def test_weights_restore_the_rate_of_what_was_sampled() -> None:
    """Users convert at 1 to 15 in a hundred; a twentieth of what did not convert is kept, with weight 20."""
    chance = np.random.default_rng(3)
    rows = 100_000
    user = chance.integers(0, USERS, rows)
    rate = 0.01 + 0.14 * (user % 10) / 9
    label = chance.random(rows) < rate
    kept = label | (chance.random(rows) < 0.05)
    weight = np.where(label, 1.0, 20.0)
    fields = np.stack([2 + user, np.full(rows, 2)], axis=1)

    def part(mask: np.ndarray, *, weighted: bool = True) -> Inputs:
        return inputs(fields[mask], label[mask], weight=weight[mask] if weighted else None)

    place = np.arange(rows)
    train, validation, test = kept & (place < 60_000), kept & (place >= 60_000) & (place < 75_000), place >= 75_000
    settings = ranking(model="mlp", epochs=12, calibrate=False)
    shape = shape_of("base", SIZES, 2, settings)
    whole = part(test, weighted=False)
    network, _ = train_network(shape, part(train), part(validation), settings, 1)
    scores = score_network(network, whole)
    assert calibration(scores, whole.label, whole.weight) == pytest.approx(1, abs=0.1)
    # On the sampled test its weights say the same.
    sampled = part(test & kept)
    assert calibration(score_network(network, sampled), sampled.label, sampled.weight) == pytest.approx(1, abs=0.1)
    for few in (True, False):
        mine = (user[test] % 10 < 5) == few
        assert scores[mine].mean() == pytest.approx(rate[test][mine].mean(), rel=0.15)
    # Without weights it believes the sample's rate.
    blind, _ = train_network(shape, part(train, weighted=False), part(validation, weighted=False), settings, 1)
    assert calibration(score_network(blind, whole), whole.label, whole.weight) > 4
    trees, _ = train_trees("gbdt", part(train), part(validation), settings, 1)
    assert calibration(score_trees(trees, whole), whole.label, whole.weight) == pytest.approx(1, abs=0.1)


def test_no_leaf_steps_further_than_it_may() -> None:
    """Of rare conversions among unconverted exposures of weight 1,000 each: item 1 converts 250 times as often."""
    chance = np.random.default_rng(4)
    rows = 16_000
    item = (chance.random(rows) < 0.14).astype(int)
    label = chance.random(rows) < np.where(item == 1, 0.98, 0.16)
    every = inputs(np.stack([np.full(rows, 2), 2 + item], axis=1), label, weight=np.where(label, 1.0, 1000.0))
    train, validation = (every.take(mask) for mask in (np.arange(rows) < 11_000, np.arange(rows) >= 11_000))
    furthest = {}
    for step in (0.5, 1e9):
        settings = ranking(trees=TreesSettings(leaves=7, rounds=10, min_leaf=20, learning_rate=0.1, max_step=step))
        trees, _ = train_trees("gbdt", train, validation, settings, 1)
        # The first tree's leaves hold the rate of all besides.
        leaves = [np.array(line.split(), dtype=float) for line in re.findall(r"leaf_value=(.*)", trees.text)][1:]
        furthest[step] = max(float(np.abs(values).max()) for values in leaves)
    assert furthest[0.5] <= 0.5 * 0.1 + 1e-9
    assert furthest[1e9] > 0.1


def test_a_loss_that_is_no_number_stops_the_training() -> None:
    *parts, _ = world_of_tastes(1000)
    with pytest.raises(LearnSparkError, match=r"the loss of base, seed 1, is .*(nan|inf).*lower ranking.learning_rate"):
        trained("base", tuple(parts), ranking(learning_rate=1e30))


def test_a_ranker_read_back_scores_the_same(tmp_path: Any) -> None:
    train, validation, test, _ = world_of_tastes(2000)
    network, _ = trained("learn-adaptor", (train, validation), ranking(epochs=1))
    trees, _ = train_trees("gbdt-learn", train, validation, ranking(), 1)
    for ranker in (
        Ranker("learn-adaptor", "dcn_v2", 1, {"best_step": 1}, network=network, calibration=Calibration(0.8, -1.5)),
        Ranker("gbdt-learn", "trees", 1, {"rounds": 3}, trees=trees),
    ):
        folder = tmp_path / ranker.name
        ranker.write(folder)
        read = Ranker.read(folder)
        assert read.ranker_id == ranker.ranker_id
        assert np.array_equal(read.score(test), ranker.score(test))
        model = next(path for path in folder.iterdir() if path.name.startswith("model"))
        content = model.read_bytes()
        at = len(content) - 40
        model.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(LearnSparkError, match=r"is damaged|cannot be read"):
            Ranker.read(folder)
        model.unlink()
        with pytest.raises(LearnSparkError, match="cannot be read"):
            Ranker.read(folder)
