"""Splits keep past and future apart and use every split point; positions are drawn with the stated weights."""

from __future__ import annotations

import math
from collections import Counter
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learn_spark.model.objectives.sampling import RecencyWeights, sample_positions, split_sequences

SENTINEL = 999_999


def _rows(lengths: list[int], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Item = 1000 * row + time, from 1; a sentinel that must never be used beyond the length."""
    items = np.full((len(lengths), width), SENTINEL, dtype=np.int32)
    for row, length in enumerate(lengths):
        items[row, :length] = 1000 * row + np.arange(1, length + 1)
    return items, np.array(lengths, dtype=np.int64)


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 12), min_size=0, max_size=8),
    history=st.integers(1, 6),
    targets=st.integers(1, 6),
    min_history=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_split_is_the_past_then_the_future(
    lengths: list[int], history: int, targets: int, min_history: int, seed: int
) -> None:
    items, given_lengths = _rows(lengths, 12)
    split = split_sequences(
        items,
        given_lengths,
        history=history,
        targets=targets,
        generator=np.random.default_rng(seed),
        min_history=min_history,
    )
    assert split.rows.tolist() == [row for row, length in enumerate(lengths) if length > min_history]
    assert split.history.shape == (len(split.rows), history)
    assert split.targets.shape == (len(split.rows), targets)
    assert split.history.dtype == split.targets.dtype == np.int32
    for at, row in enumerate(split.rows):
        past = split.history[at, : split.history_length[at]].tolist()
        future = split.targets[at, : split.target_length[at]].tolist()
        assert not split.history[at, split.history_length[at] :].any()
        assert not split.targets[at, split.target_length[at] :].any()
        events = items[row, : lengths[row]].tolist()
        point = events.index(future[0])
        assert min_history <= point < lengths[row]
        assert past == events[max(0, point - history) : point]
        assert future == events[point : point + targets]


def test_every_split_point_is_equally_likely() -> None:
    items, lengths = _rows([6] * 20_000, 8)
    split = split_sequences(items, lengths, history=8, targets=8, generator=np.random.default_rng(0), min_history=2)
    counts = Counter(split.history_length.tolist())
    assert set(counts) == {2, 3, 4, 5}
    sigma = math.sqrt(20_000 * 0.25 * 0.75)
    assert all(abs(count - 5000) < 5 * sigma for count in counts.values())


def test_same_generator_same_split() -> None:
    items, lengths = _rows([9, 3, 12] * 20, 12)

    def points(seed: int) -> list[int]:
        generator = np.random.default_rng(seed)
        return split_sequences(items, lengths, history=12, targets=2, generator=generator).history_length.tolist()

    assert points(1) == points(1)
    assert points(1) != points(2)


@pytest.mark.parametrize(
    ("lengths", "change", "message"),
    [
        ([3, 5], {}, "lengths must be at most 4, the width of the rows, got 5"),
        ([3, -1], {}, "lengths must be at least 0, got -1"),
        ([3], {}, "items .B, L. and lengths"),
        ([3, 3], {"history": 0}, "history 0"),
        ([3, 3], {"targets": 0}, "targets 0"),
        ([3, 3], {"min_history": 0}, "min_history 0"),
    ],
)
def test_split_refuses(lengths: list[int], change: dict[str, int], message: str) -> None:
    sizes = {"history": 2, "targets": 2} | change
    with pytest.raises(ValueError, match=message):
        split_sequences(np.ones((2, 4), dtype=np.int32), np.array(lengths), generator=np.random.default_rng(0), **sizes)


def test_recency_weights_by_hand() -> None:
    weights = RecencyWeights(alpha=10, beta=10_000)
    actual = weights.of(np.arange(4), np.array(4))
    largest = math.log(10_000)
    np.testing.assert_allclose(
        actual, [math.log(10) / largest, math.log(3340) / largest, math.log(6670) / largest, 1.0], rtol=1e-12
    )
    assert actual[0] == pytest.approx(0.25)
    assert weights.of(np.array(0), np.array(1)) == 1.0


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 10.0), (10.0, 10.0), (5.0, 2.0), (-3.0, 4.0)])
def test_recency_weights_refuse_what_is_not_positive_and_rising(alpha: float, beta: float) -> None:
    with pytest.raises(ValueError, match=f"alpha {alpha} and beta {beta}"):
        RecencyWeights(alpha, beta)


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 15), max_size=8),
    n=st.integers(1, 20),
    seed=st.integers(0, 2**32 - 1),
    weighted=st.booleans(),
    nearest=st.sampled_from(["end", "start"]),
)
def test_positions_are_distinct_ascending_and_inside(
    lengths: list[int], n: int, seed: int, weighted: bool, nearest: Literal["end", "start"]
) -> None:
    positions, mask = sample_positions(
        np.array(lengths, dtype=np.int64),
        n,
        generator=np.random.default_rng(seed),
        weights=RecencyWeights() if weighted else "uniform",
        nearest=nearest,
    )
    assert positions.shape == mask.shape == (len(lengths), n)
    assert positions.dtype == np.int64
    assert mask.dtype == bool
    for row, length in enumerate(lengths):
        count = min(n, length)
        assert mask[row].tolist() == [True] * count + [False] * (n - count)
        drawn = positions[row, :count].tolist()
        assert drawn == sorted(set(drawn))
        assert all(0 <= position < length for position in drawn)
        assert not positions[row, count:].any()


def _share(weights: Literal["uniform"] | RecencyWeights, nearest: Literal["end", "start"], n: int) -> np.ndarray:
    """How often each of 5 positions is among n drawn, in 40,000 draws; the other rows have other lengths."""
    lengths = np.tile([5, 1, 9], 40_000)
    positions, mask = sample_positions(lengths, n, generator=np.random.default_rng(7), weights=weights, nearest=nearest)
    drawn = positions[::3][mask[::3]]
    return np.bincount(drawn, minlength=5) / 40_000


def _inclusion(weights: np.ndarray, n: int) -> np.ndarray:
    """The chance of each position to be among n drawn one by one without replacement, by walking every order."""
    chance = np.zeros(len(weights))

    def walk(taken: tuple[int, ...], probability: float) -> None:
        if len(taken) == n:
            chance[list(taken)] += probability
            return
        left = [i for i in range(len(weights)) if i not in taken]
        for i in left:
            walk((*taken, i), probability * weights[i] / weights[left].sum())

    walk((), 1.0)
    return chance


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("nearest", ["end", "start"])
@pytest.mark.parametrize("kind", ["uniform", "recency"])
def test_frequencies_are_those_of_the_weights(
    n: int, nearest: Literal["end", "start"], kind: Literal["uniform", "recency"]
) -> None:
    if kind == "uniform":
        expected = np.full(5, n / 5)
        actual = _share("uniform", nearest, n)
    else:
        weights = np.log(10 + np.arange(5) * 9990 / 4)
        expected = _inclusion(weights if nearest == "end" else weights[::-1], n)
        actual = _share(RecencyWeights(10, 10_000), nearest, n)
    sigma = np.sqrt(expected * (1 - expected) / 40_000)
    assert (np.abs(actual - expected) < 5 * sigma).all()


def test_first_position_by_hand() -> None:
    # N = 2: weights log 10 and log 10,000, that is 1 to 4.
    positions, _ = sample_positions(
        np.full(40_000, 2), 1, generator=np.random.default_rng(3), weights=RecencyWeights(10, 10_000)
    )
    assert abs(positions.mean() - 0.8) < 5 * math.sqrt(0.16 / 40_000)


def test_sampling_refuses() -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match="n 0"):
        sample_positions(np.array([3]), 0, generator=generator)
    with pytest.raises(ValueError, match="lengths must be at least 0, got -2"):
        sample_positions(np.array([3, -2]), 1, generator=generator)
    with pytest.raises(ValueError, match="nearest 'middle'"):
        sample_positions(np.array([3]), 1, generator=generator, nearest="middle")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="integers, got float64"):
        sample_positions(np.array([3.0]), 1, generator=generator)
