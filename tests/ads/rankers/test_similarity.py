"""Likeness to the user's last events, places in the list shown: by hand, point in time, and as inputs of rankers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyspark.sql import SparkSession

from learn_spark.ads.rankers import input_files
from learn_spark.ads.rankers.fit import shape_of, train_network
from learn_spark.ads.rankers.input_files import input_file
from learn_spark.ads.rankers.metrics import auc
from learn_spark.ads.rankers.network import Batch, Network
from learn_spark.ads.rankers.similarity import nearest_of, place_of
from learn_spark.ads.rankers.trees import train_trees
from tests.ads.rankers.ads_world import AdsWorld, exposure
from tests.ads.rankers.rankings import inputs, ranking, score_network, score_trees

NAN = float("nan")


def test_nearest_is_mean_and_largest_product_with_the_last_events() -> None:
    vectors = np.array([[0, 0], [1, 0], [0, 1], [3, 4]], np.float32)
    recent = pa.array([[1], [9, 9], [1, 2], [], [1, 2, 3]], pa.list_(pa.int64())).slice(2)
    assert nearest_of(np.array([3, 3, 1]), recent, vectors)[[0, 2]].tolist() == [[3.5, 4], [pytest.approx(4 / 3), 3]]
    # No event with a vector; an item without one.
    assert np.isnan(nearest_of(np.array([3, 3, 0]), recent, vectors)[1:]).all()


def test_places_are_ranks_with_shared_ties_in_each_list() -> None:
    score = np.array([0.5, 9.0, 0.1, NAN, 0.5, 0.9, 7.0], np.float32)
    shown = np.array([4, 2, 4, 4, 4, 4, 8])
    places = place_of(score, shown)
    assert places[[0, 2, 4, 5], 0] == pytest.approx([0, -1, 0, 1])
    assert places[[0, 2, 4, 5], 1] == pytest.approx([0, -0.4, 0, 0.4], abs=1e-6)
    assert np.isnan(places[[1, 3, 6]]).all()


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> AdsWorld:
    """A release as of 100; u had i1, i2, i3 and the unknown item x before, others come at 200 and later."""
    world = AdsWorld(tmp_path_factory.mktemp("similarity"), spark)
    items = {f"i{n}": [np.cos(n), np.sin(n)] for n in range(6)}
    world.release("r1", 100, {"u": [1.0, 0.0], "v": [0.0, 1.0]}, items)
    shown = [(user, item, seconds) for seconds in (150, 200, 201, 260) for user in "uvw" for item in ("i0", "i4", "x")]
    world.exposures(
        [
            exposure(f"{user}-{item}-{seconds}", user, item, seconds, request_id=None if user == "w" else user)
            for user, item, seconds in [("u", "i0", 50), *shown]
        ]
    )
    return world


PAST = [("u", "i1", 10.0), ("u", "i2", 20), ("u", "x", 30), ("u", "i3", 140), ("u", "i5", 200), ("v", "i1", 199.5)]


def numbers_of(world: AdsWorld, folder: Path, *overrides: str, lag_hours: float = 0.0) -> dict[str, list[float]]:
    world_inputs = ("ranking.inputs=[score,nearest,list]", "ranking.nearest_events=3")
    coded = world.coded(*world_inputs, f"ranking.outcome_lag_hours={lag_hours}", *overrides)
    file = input_file("test", coded.files, coded.vectors, folder / "test.bin")
    events = coded.rows["event_id"].to_pylist()
    return dict(zip(events, file.read(0, len(file)).similarities.tolist(), strict=True))


def test_only_events_before_an_exposure_count(world: AdsWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_files, "READ_ROWS", 4)  # an instant has nine rows: its lists span batches
    world.events(PAST)
    numbers = numbers_of(world, tmp_path)

    def nearest(item: int, *events: int) -> object:
        products = [np.cos(item - event) for event in events]
        return pytest.approx([np.mean(products), max(products)], abs=1e-6)

    # The last three events are i2, x and i3, and x has no vector; the event at 200 counts from after it.
    assert numbers["u-i0-150"][:2] == nearest(0, 2, 3)
    assert numbers["u-i0-200"][:2] == nearest(0, 2, 3)
    assert numbers["u-i4-201"][:2] == nearest(4, 3, 5)
    assert numbers["v-i4-200"][:2] == nearest(4, 1)
    for event in ("u-x-201", "v-i0-150", "w-i0-260", "u-i0-50"):  # no vector, no event yet, no events, no release
        assert np.isnan(numbers[event][:2]).all(), event
    # i0 and i4 are the list of u at each instant; x has no score, w no request.
    gap = (np.cos(0) - np.cos(4)) / 2
    assert numbers["u-i0-200"][2:] == pytest.approx([1, gap], abs=1e-6)
    assert numbers["u-i4-200"][2:] == pytest.approx([-1, -gap], abs=1e-6)
    assert numbers["v-i0-150"][2] == 1  # sin(4) is below 0
    assert np.isnan([numbers[event][2] for event in ("u-x-200", "w-i0-200", "u-i0-50")]).all()

    # Planted: events at and after an exposure change nothing of it.
    world.events([*PAST, *((user, "i4", seconds) for user in "uvw" for seconds in (201.0, 259, 260, 300))])
    after = numbers_of(world, tmp_path)
    for event, values in numbers.items():
        if not event.endswith("-260"):
            assert after[event] == pytest.approx(values, nan_ok=True), event
    assert after["w-i0-260"][:2] == nearest(0, 4, 4)
    # With a lag of an hour nothing after 260 s - 1 h is known.
    assert np.isnan([values[0] for values in numbers_of(world, tmp_path, lag_hours=1).values()]).all()


def test_rankers_read_what_the_settings_name() -> None:
    chance = np.random.default_rng(0)
    similar = chance.normal(size=(3000, 4))
    similar[chance.random(3000) < 0.3] = NAN
    label = chance.random(3000) < 1 / (1 + np.exp(-4 * np.nan_to_num(similar[:, 1] + similar[:, 2])))
    every = inputs(np.zeros((3000, 1)), label, similarities=similar)
    train, validation, test = every.take(slice(2000)), every.take(slice(2000, 2400)), every.take(slice(2400, None))
    aucs = {}
    for names in (["score"], ["nearest", "list"]):
        settings = ranking(inputs=names, id_dim=2, learning_rate=1e-2)
        network, _ = train_network(shape_of("learn", [2], 2, settings), train, validation, settings, 1)
        trees, _ = train_trees("gbdt-learn", train, validation, settings, 1)
        aucs[names[0]] = [
            auc(scores, test.label, test.weight) for scores in (score_network(network, test), score_trees(trees, test))
        ]
    assert max(aucs["score"]) < 0.56
    assert min(aucs["nearest"]) > 0.8
    # A network of saved settings reads the same numbers; unknown ones as 0, with a mark.
    batch = Batch.of(test, slice(None))
    unknown = replace(batch, similarities=torch.full_like(batch.similarities, NAN))
    assert torch.isfinite(network(unknown)[0]).all()
    again = Network(network.shape).eval()
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(batch)[0], network(batch)[0])
