"""The embedding space: fitted on what was known before the split, reproducible bit for bit, registered in its table."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.workspace import Workspace
from learn_spark.encoder import embedding_space
from learn_spark.encoder.embedding_space import (
    EmbeddingSpace,
    SpaceKind,
    fit_embedding_space,
    read_embedding_space,
    register_embedding_space,
)


def cone(rows: int, width: int) -> np.ndarray:
    """Correlated rows far from the origin, as text embeddings are."""
    generator = np.random.default_rng(3)
    mixed = generator.normal(size=(rows, width)) @ generator.normal(size=(width, width))
    return (mixed + 5.0).astype(np.float32)


def test_by_hand() -> None:
    # Variances 4 and 1 on the axes, mean eigenvalue 2.5: a ridge of 0.4 adds 1 to each.
    rows = np.array([[2.0, 1.0], [2.0, -1.0], [-2.0, 1.0], [-2.0, -1.0]]) + np.array([3.0, 7.0])
    assert np.allclose(fit_embedding_space(rows, "centred").apply(rows), rows - [3.0, 7.0])
    white = fit_embedding_space(rows, "whitened", ridge=0.4).apply(rows)
    assert np.allclose(white, (rows - [3.0, 7.0]) / np.sqrt([5.0, 2.0]))
    # One direction: the first axis, its variance the larger.
    assert np.allclose(fit_embedding_space(rows, "whitened", dims=1).apply(rows)[:, 0], [1, 1, -1, -1])
    assert np.array_equal(fit_embedding_space(rows, "raw").apply(rows), rows.astype(np.float32))


def test_the_covariance_of_what_was_fitted_is_the_identity() -> None:
    rows = cone(400, 6)
    for dims in (None, 4):
        white = fit_embedding_space(rows, "whitened", dims=dims).apply(rows).astype(np.float64)
        assert np.allclose(white.mean(axis=0), 0, atol=1e-5)
        assert np.allclose(white.T @ white / 400, np.eye(dims or 6), atol=1e-4)
    space = fit_embedding_space(rows, "whitened", ridge=0.1)
    assert (space.rows, space.dims) == (400, 6)


def test_a_large_catalogue_is_fitted_on_a_sample_that_new_items_hardly_change(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = cone(2_000, 6)
    whole = fit_embedding_space(rows, "whitened", ridge=0.1)
    monkeypatch.setattr(embedding_space, "FIT_ROWS", 600)
    sampled = fit_embedding_space(rows, "whitened", ridge=0.1, rows=np.arange(1_900))
    assert sampled.rows == 600
    white = sampled.apply(rows).astype(np.float64)
    assert np.allclose(white.T @ white / len(rows), whole.apply(rows).T @ whole.apply(rows) / len(rows), atol=0.2)
    # The rows themselves say which of them are used, not their number or order.
    shuffled = np.random.default_rng(0).permutation(1_900)
    assert fit_embedding_space(rows, "whitened", ridge=0.1, rows=shuffled).key("e") == sampled.key("e")
    more, _ = embedding_space._distinct(rows, None)
    fewer, _ = embedding_space._distinct(rows, np.arange(1_900))
    assert len(np.intersect1d(more, fewer)) > 540


def test_zca_is_symmetric_and_follows_the_columns() -> None:
    rows = cone(300, 5)
    matrix = fit_embedding_space(rows, "whitened", ridge=0.1).matrix
    assert matrix is not None
    assert np.allclose(matrix, matrix.T, atol=1e-12)
    order = [3, 0, 4, 1, 2]
    permuted = fit_embedding_space(rows[:, order], "whitened", ridge=0.1).matrix
    # A sign or order left to the eigensolver would not survive a permutation of the columns.
    assert np.allclose(permuted, matrix[np.ix_(order, order)], atol=1e-9)


def test_half_precision_rows_are_summed_in_double() -> None:
    rows = (2000 + np.random.default_rng(0).normal(size=(5000, 2)) * 100).astype(np.float16)
    # In float16 the sum overflows at 65,504.
    assert np.allclose(fit_embedding_space(rows, "centred").mean, np.unique(rows, axis=0).astype(np.float64).mean(0))


@pytest.mark.parametrize(
    ("rows", "ridge", "message"),
    [
        (np.zeros((1, 3)), 0.1, "at least 2 distinct vectors, got 1"),
        (np.eye(3, 8), 0.0, "raise the ridge"),
        (np.eye(3), -0.5, "ridge -0.5"),
        (np.eye(3), float("nan"), "ridge nan"),
        (np.array([[1.0, np.nan], [0.0, 1.0]]), 0.1, "1 of 2 embedding columns"),
    ],
)
def test_refuses_what_cannot_be_whitened(rows: np.ndarray, ridge: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_embedding_space(rows, "whitened", ridge=ridge)


@pytest.mark.parametrize("kind", ["centred", "whitened"])
def test_an_item_after_the_split_does_not_influence_the_space(kind: SpaceKind) -> None:
    vectors = cone(60, 4)
    far_off = np.full((1, 4), 1e4, np.float32)
    catalogue = np.concatenate([np.zeros((1, 4), np.float32), vectors, far_off])
    trained = np.arange(1, 61)
    expected = fit_embedding_space(vectors, kind, ridge=0.01)
    within = fit_embedding_space(catalogue, kind, ridge=0.01, rows=trained)
    assert np.array_equal(within.apply(catalogue), expected.apply(catalogue))
    assert within.key("e") == expected.key("e")
    leaking = fit_embedding_space(catalogue, kind, ridge=0.01, rows=np.arange(1, 62))
    assert np.abs(leaking.mean - expected.mean).min() > 100
    assert leaking.key("e") != expected.key("e")


def test_neither_order_nor_repeats_change_a_bit() -> None:
    rows = cone(50, 3)
    order = np.random.default_rng(0).permutation(50)
    for kind in ("centred", "whitened"):
        one, other = (
            fit_embedding_space(rows, kind),
            fit_embedding_space(np.concatenate([rows[order], rows[:20]]), kind),
        )
        assert np.array_equal(one.apply(rows), other.apply(rows))
        assert (one.rows, one.fitted_on) == (other.rows, other.fitted_on) == (50, one.fitted_on)


def test_signs_of_directions_are_settled() -> None:
    rows = cone(80, 5)
    space = fit_embedding_space(rows, "whitened", dims=3)
    assert space.matrix is not None
    assert (np.take_along_axis(space.matrix, np.abs(space.matrix).argmax(0)[None], axis=0) > 0).all()


def test_written_down_once_and_read_back_bit_for_bit(tmp_path: Path) -> None:
    workspace = Workspace.open(str(tmp_path))
    rows = cone(40, 4)
    spaces = [
        fit_embedding_space(rows, "raw"),
        fit_embedding_space(rows, "centred"),
        fit_embedding_space(rows, "whitened", ridge=0.01),
        fit_embedding_space(rows, "whitened", ridge=0.01, dims=2),
        fit_embedding_space(rows, "whitened", ridge=0.02),
    ]
    with ThreadPoolExecutor(8) as pool:  # several trainings at once
        register = partial(register_embedding_space, workspace, encoder_key="encoder a", inputs={"user_histories": "7"})
        twice = list(pool.map(register, [*spaces, *spaces]))
    keys = twice[: len(spaces)]
    assert twice == keys + keys
    assert keys == [
        register_embedding_space(workspace, space, "encoder a", {"user_histories": "8"}) for space in spaces
    ]
    assert len(set(keys)) == len(spaces)
    assert spaces[1].key("encoder b") not in keys
    written = read_rows(workspace.table("embedding_spaces"))
    assert [row["inputs"] for row in written] == [{"user_histories": "7"}] * len(spaces)
    assert {row["space_key"] for row in written} == set(keys)
    assert {(row["rows"], row["dims"]) for row in written} == {(0, 4), (40, 4), (40, 2)}
    for key, space in zip(keys, spaces, strict=True):
        again = read_embedding_space(workspace, key)
        assert again.key("encoder a") == key
        assert np.array_equal(again.apply(rows), space.apply(rows))
    with pytest.raises(LearnSparkError, match="no space abc"):
        read_embedding_space(workspace, "abc")


@pytest.mark.parametrize(
    ("rows", "kind", "options", "message"),
    [
        (
            np.eye(3),
            "centred",
            {"dims": 2},
            "dims 2 must be 1 to 3 for a whitened space and None for others; this space is centred",
        ),
        (np.eye(3), "whitened", {"dims": 4}, "dims 4 must be 1 to 3"),
        (np.eye(3), "centred", {"rows": np.zeros(0, int)}, "no item has a training event"),
        (np.ones((5, 3)), "whitened", {"ridge": 0.1}, "needs at least 2 distinct vectors, got 1"),
        (np.eye(3, 8), "whitened", {}, "raise the ridge"),
        (np.array([[1.0, np.nan], [0.0, 1.0]]), "centred", {}, "1 of 2 embedding columns"),
    ],
)
def test_refuses_what_cannot_be_fitted(rows: np.ndarray, kind: SpaceKind, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_embedding_space(rows, kind, **options)


def test_refuses_vectors_of_another_width() -> None:
    space: EmbeddingSpace = fit_embedding_space(np.eye(3), "centred")
    with pytest.raises(ValueError, match=r"vectors \[..., 3\], got \[2, 4\]"):
        space.apply(np.zeros((2, 4)))


def test_principal_directions_of_full_width_are_another_space_than_zca() -> None:
    rows = cone(60, 5)
    zca, principal = (fit_embedding_space(rows, "whitened", ridge=0.1, dims=dims) for dims in (None, 5))
    assert zca.matrix is not None
    assert not np.allclose(zca.matrix, principal.matrix)  # type: ignore[arg-type]
    assert zca.key("a") != principal.key("a")
    # Keys of before: a space without dims keeps its key.
    parts = ["a", "whitened", 0.1, 5, zca.fitted_on]
    assert zca.key("a") == hashlib.sha256(json.dumps(parts).encode()).hexdigest()
