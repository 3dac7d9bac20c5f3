"""Dropout on CPUs: shares, scale, reproducibility, and attention against PyTorch's."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from learn_spark.model.towers.dropout import Dropout, attend, dropout


@pytest.mark.parametrize("p", [0.1, 0.35, 0.5, 0.9])
def test_the_share_is_dropped_and_the_rest_scaled(p: float) -> None:
    torch.manual_seed(1)
    count = 400_003  # no multiple of the elements of a draw
    values = torch.ones(count)
    result = Dropout(p).train()(values)
    kept = result != 0
    spread = math.sqrt(count * p * (1 - p))
    assert abs(int((~kept).sum()) - count * p) < 5 * spread
    assert torch.allclose(result[kept], torch.tensor(1 / (1 - p)), rtol=1e-4)
    # Neighbours share a draw of the generator: pairs must be dropped as often as independent elements are.
    for apart in (1, 2, 3, 4):
        both = (~kept[:-apart] & ~kept[apart:]).float().mean()
        assert abs(float(both) - p * p) < 5 * math.sqrt(p * p / count) + 1e-3


def test_masks_follow_the_seed_and_differ_between_calls() -> None:
    values = torch.rand(3, 5, 7)
    torch.manual_seed(5)
    first, second = dropout(values, 0.5, training=True), dropout(values, 0.5, training=True)
    torch.manual_seed(5)
    assert torch.equal(dropout(values, 0.5, training=True), first)
    assert not torch.equal(first, second)
    assert torch.equal(dropout(values, 0.5, training=False), values)
    assert torch.equal(Dropout(0.5).eval()(values), values)


def test_gradients_pass_where_values_do() -> None:
    values = torch.rand(64, 3, dtype=torch.float64).add(0.1).requires_grad_()
    result = dropout(values, 0.3, training=True)
    result.sum().backward()
    assert values.grad is not None
    assert torch.allclose(values.grad, result.detach() / values.detach())
    assert result.dtype == torch.float64


@pytest.mark.parametrize("shape", [(2, 3, 8, 4), (1, 1, 1, 4)])
@pytest.mark.parametrize("kind", ["none", "causal", "boolean", "added"])
def test_attention_with_little_dropout_is_pytorch_attention(shape: tuple[int, ...], kind: str) -> None:
    torch.manual_seed(3)
    query, key, value = torch.randn(3, *shape, dtype=torch.float64).unbind(0)
    length = shape[2]
    visible = torch.rand(length, length) < 0.5
    visible |= torch.eye(length, dtype=torch.bool)
    mask = {"boolean": visible, "added": torch.randn(length, length, dtype=torch.float64)}.get(kind)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=kind == "causal")
    # A share below 1/131072 rounds to none dropped, but takes the path with dropout.
    result = attend(query, key, value, mask=mask, causal=kind == "causal", p=1e-6)
    assert torch.allclose(result, expected, atol=1e-12)
    assert torch.equal(attend(query, key, value, mask=mask, causal=kind == "causal"), expected)


def test_attention_weights_are_dropped_not_values() -> None:
    torch.manual_seed(3)
    query, key = torch.randn(2, 4000, 1, 6, 2).unbind(0)
    value = torch.eye(6).expand(4000, 1, 6, 6)
    weights = attend(query, key, value, p=0.25)
    assert abs(float((weights == 0).float().mean()) - 0.25) < 0.01
    expected = (query @ key.transpose(-2, -1) / math.sqrt(2)).softmax(dim=-1)
    kept = weights != 0
    assert torch.allclose(weights[kept], expected[kept] / 0.75, atol=1e-5)
