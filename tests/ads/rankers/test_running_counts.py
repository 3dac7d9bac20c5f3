"""Counts of what came before an exposure: by hand, with a planted future, and what rankers learn from them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from pyspark.sql import SparkSession

from learn_spark.ads.inputs.counts import COUNTS, RUNNING
from learn_spark.ads.rankers.fit import shape_of, train_network
from learn_spark.ads.rankers.inputs import Inputs
from learn_spark.ads.rankers.metrics import auc
from learn_spark.ads.rankers.trees import TreeInputs, train_trees
from learn_spark.core.settings.ads import TreesSettings
from tests.ads.rankers.ads_world import START, AdsWorld, exposure
from tests.ads.rankers.rankings import inputs, ranking, score_network, score_trees

HOUR = 3600
MICROS = round(START.timestamp() * 1e6)


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> AdsWorld:
    world = AdsWorld(tmp_path_factory.mktemp("counts"), spark)
    world.events([("u", "i", -30), ("v", "i", -20), ("u", "j", -10), ("u", "i", 1800), ("u", "i", 9 * HOUR)])
    world.release("r1", 3 * HOUR, {"u": [1.0]}, {"i": [1.0]})
    return world


def chance_exposures() -> list[dict[str, object]]:
    chance = np.random.default_rng(0)
    rows = []
    for n in range(120):
        user, item, at = (int(chance.integers(most)) for most in (4, 6, 30))
        weight = float(chance.choice([0.0, 1.0, 1 / 0.3]))
        rows.append(exposure(f"e{n}", f"u{user}", f"i{item}", at * HOUR / 4, chance.random() < 0.4, weight=weight))
    return rows


def counted(world: AdsWorld, lag_hours: float, since: int | None = None) -> dict[str, list[float]]:
    frame = world.shown(since=since, lag_hours=lag_hours).frame
    return {row.event_id: [row[name] for name in RUNNING] for row in frame.collect()}


@pytest.mark.parametrize("lag_hours", [0, 1, 2.5])
def test_an_exposure_counts_what_was_known_strictly_before_it(world: AdsWorld, lag_hours: float) -> None:
    rows = chance_exposures()
    world.exposures(rows)
    read = counted(world, lag_hours)
    shown = [row for row in rows if row["weight"]]
    assert read.keys() == {row["event_id"] for row in shown}
    for row in shown:
        expected = []
        for key in ("item_id", "user_id"):
            before = [
                other
                for other in shown
                if other[key] == row[key]
                and (row["event_time"] - other["event_time"]).total_seconds() > lag_hours * HOUR  # type: ignore[operator]
            ]
            expected += [sum(r["weight"] for r in before), sum(r["weight"] for r in before if r["converted"])]  # type: ignore[misc]
        assert read[row["event_id"]] == pytest.approx(expected, rel=1e-4), row  # type: ignore[index]
    # Exposures from before the start of a later run count too.
    since = MICROS + 4 * HOUR * 1_000_000
    assert counted(world, lag_hours, since).items() < read.items()


def test_a_planted_future_changes_no_count(world: AdsWorld) -> None:
    rows = chance_exposures()
    world.exposures(rows)
    before = counted(world, 1)
    # At the time of an exposure less the lag, and from then on, of its user and item.
    time = rows[0]["event_time"]
    seconds = (time - START).total_seconds()  # type: ignore[operator]
    future = [exposure(f"leak{n}", "u0", "i0", seconds - HOUR + n, True) for n in (0, 1, HOUR)]
    world.exposures([*rows, *future])
    after = counted(world, 1)
    earlier = [row["event_id"] for row in rows if row["weight"] and row["event_time"] <= time]  # type: ignore[operator]
    assert len(earlier) > 20
    assert all(after[event] == before[event] for event in earlier)  # type: ignore[index]
    assert any(after[event] != before[event] for event in before)


def test_events_of_the_release_and_none_without_one(world: AdsWorld) -> None:
    world.exposures([exposure("early", "u", "i", HOUR), exposure("late", "u", "i", 9 * HOUR + 1, True)])
    coded = world.coded(lag_hours=0)
    # u has 3 and i 3 events before the release as of 3 h; the one at 9 h is before the exposure, and unknown to it.
    assert coded.rows.select(COUNTS).to_pylist() == [
        dict.fromkeys(COUNTS, 0),
        dict(zip(COUNTS, (1, 0, 1, 0, 3, 3), strict=True)),
    ]


def rates_that_move() -> tuple[Inputs, Inputs, Inputs]:
    """(train, validation, test): every item has a rate of its own, and the items of each stretch are new."""
    chance = np.random.default_rng(1)
    rows, of_item = 12_000, 60
    item = np.arange(rows) // (of_item * 20) * 20 + chance.integers(0, 20, rows)
    rate = chance.beta(0.5, 0.5, item.max() + 1)
    label = chance.random(rows) < rate[item]
    counts, known = np.zeros((rows, 6)), np.zeros((item.max() + 1, 2))
    for n, (i, won) in enumerate(zip(item, label, strict=True)):
        counts[n, :2] = known[i]
        known[i] += (1, won)
    last = int(rows * 0.7)
    fields = np.stack([np.full(rows, 2), np.where(np.arange(rows) < last, 2 + item, 0)], axis=1)
    every = inputs(fields, label, counts=counts)
    edges = (0, last, int(rows * 0.8), rows)
    return tuple(every.take(slice(a, b)) for a, b in pairwise(edges))  # type: ignore[return-value]


def test_rankers_learn_the_rates_of_new_items_from_counts_alone() -> None:
    train, validation, test = rates_that_move()
    found = {}
    for counts in (True, False):
        settings = ranking(counts=counts, model="mlp", trees=TreesSettings(leaves=7, rounds=40, categories=50))
        shape = shape_of("base", [3, 2 + int(train.rows.max())], 2, settings)
        network, _ = train_network(shape, train, validation, settings, 1)
        trees, _ = train_trees("gbdt", train, validation, settings, 1)
        for name, scores in (("network", score_network(network, test)), ("gbdt", score_trees(trees, test))):
            found[name, counts] = auc(scores, test.label, test.weight)
    for name in ("network", "gbdt"):
        assert found[name, True] > 0.75, found
        assert abs(found[name, False] - 0.5) < 0.05, found


def test_trees_read_ids_of_many_values_as_counts() -> None:
    rows = np.array([[2, 3, 2], [2, 3, 3], [3, 5, 4], [4, 0, 4]])
    counts = np.array([[9, 1, 0, 0, 0, 0]] * 4)
    train = inputs(rows, np.array([1, 0, 0, 1]), counts=counts)
    few = TreesSettings(categories=2)
    for counted, fields in ((True, ["place"]), (False, ["user", "item", "place"])):
        made = TreeInputs.of("gbdt", train, ranking(counts=counted, trees=few))
        # Of three users and items: by running counts, else by their training exposures; the unknown row has none.
        assert made.categories(3) == []
        numbers = made.of_rows(inputs(np.array([[2, 0, 4], [9, 5, 9]]), np.zeros(2), counts=counts[:2]), slice(None))
        columns = {"user": np.log1p([2, 0]), "item": np.log1p([0, 1]), "place": np.log1p([2, 0])}
        for column, name in enumerate(fields):
            assert numbers[:, column] == pytest.approx(columns[name])
        assert numbers.shape[1] == len(fields) + 4 + (8 if counted else 0)
    made = TreeInputs.of("gbdt", train, ranking(trees=TreesSettings(categories=3)))
    assert made.categories(3) == [0, 1]  # columns: user and place
    assert made.without == (1,)
