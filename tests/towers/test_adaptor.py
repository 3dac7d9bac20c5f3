"""Whitening makes the covariance the identity; the adaptor's learned layer sees whitened rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from learn_spark.encoder import space as space_module
from learn_spark.towers.adaptor import ContentAdaptor, fit_whitening


def _cone(rows: int, width: int, seed: int = 0) -> np.ndarray:
    """Correlated rows far from the origin, as text embeddings are."""
    generator = np.random.default_rng(seed)
    return generator.normal(size=(rows, width)) @ generator.normal(size=(width, width)) + 5.0


def test_whitened_covariance_is_the_identity() -> None:
    rows = _cone(500, 7)
    mean, matrix = fit_whitening(rows, ridge=0.0)
    white = (rows - mean) @ matrix
    np.testing.assert_allclose(white.mean(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(white.T @ white / 500, np.eye(7), atol=1e-9)


def test_hand_worked_diagonal_case() -> None:
    # Variances 4 and 1 on the axes; the mean eigenvalue is 2.5, so a ridge of 0.4 adds 1 to each.
    rows = np.array([[2.0, 1.0], [2.0, -1.0], [-2.0, 1.0], [-2.0, -1.0]]) + np.array([3.0, 7.0])
    mean, matrix = fit_whitening(rows, ridge=0.4)
    np.testing.assert_allclose(mean, [3.0, 7.0])
    np.testing.assert_allclose(matrix, np.diag([5.0**-0.5, 2.0**-0.5]), atol=1e-12)


def test_zca_is_symmetric_and_follows_the_columns() -> None:
    rows = _cone(300, 5)
    _, matrix = fit_whitening(rows, ridge=0.1)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    order = [3, 0, 4, 1, 2]
    _, permuted = fit_whitening(rows[:, order], ridge=0.1)
    # A sign or order left to the eigensolver would not survive a permutation of the columns.
    np.testing.assert_allclose(permuted, matrix[np.ix_(order, order)], atol=1e-9)


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _cone(100, 4).astype(np.float32)
    whole = fit_whitening(rows, ridge=0.01)
    monkeypatch.setattr(space_module, "CHUNK_ROWS", 7)
    for one, other in zip(whole, fit_whitening(rows, ridge=0.01), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_half_precision_rows_are_summed_in_double() -> None:
    rows = np.full((70_000, 2), 3.0, dtype=np.float16)
    rows[::2, 0] = 1.0
    mean, _ = fit_whitening(rows, ridge=1.0)
    np.testing.assert_allclose(mean, [2.0, 3.0])  # float16 sums overflow at 65504


@pytest.mark.parametrize(
    ("rows", "ridge", "message"),
    [
        (np.zeros((1, 3)), 0.1, r"got \[1, 3\]"),
        (np.zeros((5, 3)), 0.1, "raise the ridge"),
        (np.eye(3, 8), 0.0, "raise the ridge"),
        (np.eye(3), -0.5, "ridge -0.5"),
        (np.eye(3), float("nan"), "ridge nan"),
        (np.array([[1.0, np.nan], [0.0, 1.0]]), 0.1, "1 of 2 embedding columns"),
    ],
)
def test_refuses_what_cannot_be_whitened(rows: np.ndarray, ridge: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_whitening(rows, ridge=ridge)


def test_learned_layer_sees_whitened_rows() -> None:
    torch.manual_seed(0)
    adaptor = ContentAdaptor(content_dim=6, width=4).double()
    rows = np.random.default_rng(1).normal(size=(2, 3, 6))
    mean = np.arange(6.0)
    matrix = np.random.default_rng(2).normal(size=(6, 6))  # not symmetric: a transpose must show
    weight, bias = adaptor.linear.weight.detach().numpy(), adaptor.linear.bias.detach().numpy()
    untouched = adaptor(torch.from_numpy(rows)).detach().numpy()
    np.testing.assert_allclose(untouched, rows @ weight.T + bias, atol=1e-12)
    adaptor.set_whitening(mean, matrix)
    found = adaptor(torch.from_numpy(rows)).detach().numpy()
    np.testing.assert_allclose(found, ((rows - mean) @ matrix) @ weight.T + bias, atol=1e-10)


def test_whitening_is_saved_but_not_trained() -> None:
    adaptor = ContentAdaptor(content_dim=3, width=2)
    adaptor.set_whitening(np.arange(3.0), np.diag([1.0, 2.0, 3.0]))
    assert {name for name, _ in adaptor.named_parameters()} == {"linear.weight", "linear.bias"}
    copy = ContentAdaptor(content_dim=3, width=2)
    copy.load_state_dict(adaptor.state_dict())
    rows = torch.randn(4, 3)
    assert torch.equal(copy(rows), adaptor(rows))


def test_refuses_shapes_that_do_not_fit() -> None:
    adaptor = ContentAdaptor(content_dim=3, width=2)
    with pytest.raises(ValueError, match=r"\(3,\) and \(3, 3\), got \(3,\), \(2, 2\)"):
        adaptor.set_whitening(np.zeros(3), np.eye(2))
    with pytest.raises(ValueError, match="not finite"):
        adaptor.set_whitening(np.zeros(3), np.full((3, 3), np.nan))
    with pytest.raises(ValueError, match=r"content \[..., 3\], got \[5, 4\]"):
        adaptor(torch.zeros(5, 4))
    with pytest.raises(ValueError, match="content_dim 0"):
        ContentAdaptor(content_dim=0, width=2)
