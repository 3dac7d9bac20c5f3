"""The exported form of every tower gives the tower's vectors, whatever the padding, the window and the times."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from learn_spark.core.errors import LearnSparkError
from learn_spark.model.blending.frequency_weights import FrequencyWeights
from learn_spark.model.blending.tower import BlendedTower
from learn_spark.model.export.buckets import ExactBuckets, first_seconds
from learn_spark.model.export.graph import UserGraph
from learn_spark.model.export.padded import padded_user
from learn_spark.model.export.write import run
from learn_spark.model.narrowing.projections import NarrowedTower, Projections
from learn_spark.model.towers.bound import BoundTower
from learn_spark.model.towers.hstu import TIME_BUCKETS, time_buckets
from learn_spark.model.towers.registry import TOWERS, tower_of_shape
from learn_spark.model.towers.sasrec import SASRec
from learn_spark.model.towers.time_gaps import GAPS, gap_buckets
from learn_spark.model.towers.tower import Tower
from learn_spark.model.towers.vectors import unit_rows, user_vectors

ITEMS, NEWER, CONTENT, WINDOW, LENGTH, USERS = 30, 3, 7, 5, 12, 24
SIZES = {"n_items": ITEMS, "width": 8, "layers": 2, "heads": 2, "dropout": 0.1}
SHAPES: dict[str, dict[str, Any]] = {
    "learn": {"kind": "learn", "content_dim": CONTENT, "ffn": 8, "output_dim": 6, "item_tower": "a"},
    "learn c": {"kind": "learn", "content_dim": CONTENT, "ffn": 8, "output_dim": 6, "item_tower": "c"},
    "learn-plus": {"kind": "learn-plus", "content_dim": CONTENT, "ffn": 8, "max_length": WINDOW},
    "gaps": {"kind": "learn-plus", "content_dim": CONTENT, "ffn": 8, "max_length": WINDOW, "time_gaps": True},
    "no ids": {"kind": "learn-plus", "content_dim": CONTENT, "ffn": 8, "max_length": WINDOW, "ids": False},
    "members": {
        "kind": "learn-plus-members",
        "members": 2,
        "content_dim": CONTENT,
        "ffn": 8,
        "max_length": WINDOW,
        "norm": "post",
        "unit_content": True,
        "time_gaps": True,
    },
    "dot": {"kind": "learn-plus", "content_dim": CONTENT, "ffn": 8, "max_length": WINDOW, "similarity": "dot"},
    "sasrec": {"kind": "sasrec", "ffn": 8, "max_length": WINDOW},
    "sasrec first": {"kind": "sasrec", "ffn": 8, "max_length": 9, "positions": "first", "similarity": "cosine"},
    "hstu": {"kind": "hstu", "dqk": 4, "dv": 3, "max_length": WINDOW},
    "hstu dot": {"kind": "hstu", "dqk": 4, "dv": 4, "max_length": 9, "positions": "last", "similarity": "dot"},
    "bsarec": {"kind": "bsarec", "ffn": 8, "max_length": WINDOW, "alpha": 0.6, "c": 3},
}


def tower_of(name: str, matrix: np.ndarray) -> Tower:
    torch.manual_seed(4)
    tower = tower_of_shape({**SIZES, **SHAPES[name]}).eval()
    for parameter in tower.parameters():
        torch.nn.init.normal_(parameter.detach(), std=0.4)
    for table in tower.id_tables:
        table.weight.detach()[0] = 0.0
    if name.startswith(("learn", "gaps", "members", "no ids", "dot")):
        tower.bind(matrix)  # type: ignore[operator]
    return tower


def blended(tower: Tower) -> BlendedTower:
    """``tower`` blended with content; one over a dot product with co-visits and profiles, too."""
    assert isinstance(tower, BoundTower)
    co_visits = None if tower.normalised else unit_rows(np.random.default_rng(6).normal(size=(ITEMS, 3)))
    weights = FrequencyWeights(FrequencyWeights.start(3 if co_visits is None else 6).weights + 0.3)
    options = {} if co_visits is None else {"co_visits": co_visits, "profile": True}
    return BlendedTower(tower, weights, np.arange(ITEMS), temperature=0.1, reach=2, decay=0.5, **options)


def content() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(ITEMS + NEWER + 1, CONTENT)).astype(np.float16)


def histories(highest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """items, times [USERS, LENGTH] right-padded, lengths: mostly short ones, so that the tower packs them."""
    chance = np.random.default_rng(2)
    lengths = np.where(np.arange(USERS) < 18, chance.integers(1, 3, USERS), chance.integers(1, LENGTH + 1, USERS))
    inside = np.arange(LENGTH) < lengths[:, None]
    gaps = chance.choice([0, 300_000, 16_384_000_000, 10**12, 10**14], (USERS, LENGTH))
    items = np.where(inside, chance.integers(1, highest + 1, (USERS, LENGTH)), 0)
    return items, np.where(inside, gaps.cumsum(axis=1), 0), lengths


def inputs(graph: UserGraph, items: np.ndarray, times: np.ndarray, new: np.ndarray | None = None) -> dict[str, Any]:
    given: dict[str, Any] = {"items": items}
    if graph.content_dim:
        given["new_items"] = np.zeros((0, CONTENT), np.float32) if new is None else new
    if graph.needs_times:
        given["times"] = times
    return given


def narrowed(tower: Tower) -> NarrowedTower:
    """``tower`` with vectors of five numbers."""
    chance, wide = np.random.default_rng(7), tower.output_dim
    maps = [np.float32(chance.normal(size=size)) for size in ((wide, 4), (wide, 4), wide)]
    return NarrowedTower(tower, Projections(*maps, longest=3.0, unit=tower.normalised))


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("name", [*SHAPES, "blended", "blended gaps", "blended dot"])
def test_vectors_are_those_of_the_tower(name: str, narrow: bool) -> None:
    made = tower_of(name.replace("blended ", "").replace("blended", "learn"), content()[: ITEMS + 1])
    tower: Tower = blended(made) if name.startswith("blended") else made
    tower = narrowed(tower) if narrow else tower
    graph = UserGraph(tower, WINDOW).eval()
    items, times, lengths = histories(ITEMS)
    expected = user_vectors(tower, items, lengths, WINDOW, times=times)
    found = run(graph, inputs(graph, items, times))
    assert np.allclose(found["vectors"], expected, atol=1e-6)
    assert np.array_equal(found["events"], np.minimum(lengths, WINDOW))
    assert not found["unknown"].any()

    # Padding before, after and between events, and indices outside the catalogue, change nothing but their count.
    spread, at = np.zeros((USERS, 2 * LENGTH + 3), np.int64), 2 * np.arange(LENGTH) + 1
    spread_times = spread.copy()
    spread[:, at], spread_times[:, at] = items, times
    spread[::2, 0], spread[::3, 2] = ITEMS + 1, -1
    again = run(graph, inputs(graph, spread, spread_times))
    assert np.allclose(again["vectors"], found["vectors"], atol=1e-6)
    assert again["unknown"].tolist() == [(user % 2 == 0) + (user % 3 == 0) for user in range(USERS)]

    # No event, no vector.
    nothing = run(graph, inputs(graph, np.zeros((2, 3), np.int64), np.zeros((2, 3), np.int64)))
    assert np.isnan(nothing["vectors"]).all()
    assert nothing["events"].tolist() == [0, 0]


@pytest.mark.parametrize("name", ["learn", "learn-plus", "members", "blended gaps", "blended dot"])
def test_items_newer_than_the_graph_are_given_by_content(name: str) -> None:
    matrix = content()
    made = tower_of(name.replace("blended ", ""), matrix[: ITEMS + 1])
    graph = UserGraph(blended(made) if name.startswith("blended") else made, WINDOW).eval()
    made.bind(matrix)  # type: ignore[operator]
    later = blended(made) if name.startswith("blended") else made
    items, times, lengths = histories(ITEMS + NEWER)
    expected = user_vectors(later, items, lengths, WINDOW, times=times)
    new = matrix[ITEMS + 1 :].astype(np.float32)
    found = run(graph, inputs(graph, items, times, new))
    assert np.allclose(found["vectors"], expected, atol=1e-6)
    # Without their content they are unknown.
    left_out = run(graph, inputs(graph, items, times, new[:1]))
    assert left_out["unknown"].tolist() == (items > ITEMS + 1).sum(axis=1).tolist()


def test_borders_of_buckets_are_exact() -> None:
    def gap(seconds: torch.Tensor) -> torch.Tensor:
        return gap_buckets(torch.stack([torch.zeros_like(seconds), seconds * 1_000_000], dim=1))[:, 1]

    def span(seconds: torch.Tensor) -> torch.Tensor:
        return time_buckets(seconds[None] * 1_000_000, torch.zeros(1, 1, dtype=torch.int64)).flatten()

    # 22/28 of log2(seconds): 2^14 seconds begin a bucket.
    firsts = first_seconds(gap, GAPS)
    assert firsts[:3].tolist() == [0, 0, 1]
    assert firsts[2 + 11] == 2**14
    for bucket, count in ((gap, GAPS), (span, TIME_BUCKETS + 1)):
        firsts = first_seconds(bucket, count)
        seconds = torch.cat([firsts - 1, firsts, firsts + 1]).clamp(min=0)
        seconds = seconds[seconds < 1 << 42]
        for error in (-1, 0, 1):
            assert torch.equal(ExactBuckets(bucket, count)(seconds, bucket(seconds) + error), bucket(seconds))


def test_every_kind_of_tower_has_an_exported_form() -> None:
    assert {shape["kind"] for shape in SHAPES.values()} == set(TOWERS)

    class Other(SASRec):
        method = "other"

    class Unrelated(Tower):
        method = "unrelated"
        user = items = to_dict = None  # type: ignore[assignment]

    assert padded_user(Other(**SIZES, ffn=8, max_length=WINDOW)), "a kind of SASRec"
    with pytest.raises(LearnSparkError, match="unrelated tower cannot be exported"):
        padded_user(Unrelated())
