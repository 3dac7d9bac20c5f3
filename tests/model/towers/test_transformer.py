"""The causal transformer against a loop-by-loop implementation, and the inputs that may affect a position."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from learn_spark.model.towers.transformer import CausalBlock, CausalTransformer


def _normed(row: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return (row - row.mean()) / math.sqrt(row.var() + 1e-12) * scale + shift


def _gelu(value: float) -> float:
    return value * 0.5 * (1.0 + math.erf(value / math.sqrt(2.0)))


def slow_block(block: CausalBlock, hidden: np.ndarray) -> np.ndarray:
    """One post-LayerNorm block on [L, W], written from the definition: one head, one position, one key at a time."""
    state = {name: tensor.double().numpy() for name, tensor in block.state_dict().items()}
    length, width = hidden.shape
    heads, size = block.heads, width // block.heads
    weight, bias = state["qkv.weight"], state["qkv.bias"]
    query, key, value = (hidden @ weight[i * width : (i + 1) * width].T + bias[i * width :][:width] for i in range(3))
    result = np.zeros_like(hidden)
    for position in range(length):
        attended = np.zeros(width)
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            logits = [query[position, part] @ key[other, part] / math.sqrt(size) for other in range(position + 1)]
            powers = [math.exp(logit - max(logits)) for logit in logits]
            for other in range(position + 1):
                attended[part] += powers[other] / sum(powers) * value[other, part]
        attended = state["attention_output.weight"] @ attended + state["attention_output.bias"]
        first = _normed(hidden[position] + attended, state["attention_norm.weight"], state["attention_norm.bias"])
        inner = np.array([_gelu(v) for v in state["ffn_input.weight"] @ first + state["ffn_input.bias"]])
        outer = state["ffn_output.weight"] @ inner + state["ffn_output.bias"]
        result[position] = _normed(first + outer, state["ffn_norm.weight"], state["ffn_norm.bias"])
    return result


def _randomised(module: torch.nn.Module) -> None:
    """Weights of order one, biases and scales included, so that no part of a block can hide."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4 + (0.1 if parameter.dim() == 1 else 0.0))


@pytest.mark.parametrize("heads", [1, 3])
def test_block_agrees_with_a_slow_one(heads: int) -> None:
    torch.manual_seed(0)
    block = CausalBlock(width=12, heads=heads, ffn=20, dropout=0.1).double().eval()
    _randomised(block)
    hidden = torch.randn(2, 5, 12, dtype=torch.float64)
    actual = block(hidden).detach().numpy()
    for row in range(2):
        np.testing.assert_allclose(actual[row], slow_block(block, hidden[row].numpy()), atol=1e-10)


def test_blocks_are_stacked_in_order() -> None:
    torch.manual_seed(1)
    transformer = CausalTransformer(width=8, layers=3, heads=2, ffn=16, dropout=0.0).double()
    _randomised(transformer)
    hidden = torch.randn(1, 4, 8, dtype=torch.float64)
    expected = hidden[0].numpy()
    for block in transformer.blocks:
        assert isinstance(block, CausalBlock)
        expected = slow_block(block, expected)
    np.testing.assert_allclose(transformer(hidden)[0].detach().numpy(), expected, atol=1e-9)


def test_bert_base_layer_has_7_088_million_parameters() -> None:
    with torch.device("meta"):
        transformer = CausalTransformer(width=768, layers=12, heads=12, ffn=3072, dropout=0.1)
    assert sum(p.numel() for p in transformer.parameters()) == 12 * 7_087_872


def test_initialised_as_bert() -> None:
    torch.manual_seed(0)
    block = CausalTransformer(width=128, layers=1, heads=4, ffn=512, dropout=0.1).blocks[0]
    for name, parameter in block.named_parameters():
        if "norm" in name:
            assert torch.equal(parameter, torch.full_like(parameter, 1.0 if "weight" in name else 0.0))
        elif "bias" in name:
            assert not parameter.any()
        else:
            assert abs(float(parameter.detach().std()) - 0.02) < 0.001
            assert abs(float(parameter.detach().mean())) < 0.001


def test_no_dropout_outside_training() -> None:
    torch.manual_seed(0)
    block = CausalBlock(width=8, heads=2, ffn=16, dropout=0.5).eval()
    hidden = torch.randn(4, 6, 8)
    assert torch.equal(block(hidden), block(hidden))


@pytest.mark.parametrize("place", ["probabilities", "attention_output", "ffn_output"])
def test_dropout_acts_on_each_of_three_places(place: str) -> None:
    torch.manual_seed(0)
    block = CausalBlock(width=8, heads=2, ffn=16, dropout=0.5).train()
    _randomised(block)
    if place == "probabilities":
        block.dropout.eval()  # leaves only the dropout inside attention
    else:
        # The other branch always gives 0, and a branch of zeros stays so whatever is dropped.
        other = block.ffn_output if place == "attention_output" else block.attention_output
        torch.nn.init.zeros_(other.weight)
        torch.nn.init.zeros_(other.bias)
    if place == "attention_output":
        torch.nn.init.zeros_(block.attention_output.weight)  # the bias is left: what attention drops cannot show
    hidden = torch.randn(4, 6, 8)
    assert not torch.equal(block(hidden), block(hidden))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 5}, "width 8 is not a multiple of heads 5"),
        ({"layers": 0}, "layers 0"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"ffn": -3}, "ffn -3"),
    ],
)
def test_refuses_contradictory_sizes(change: dict[str, float], message: str) -> None:
    arguments = {"width": 8, "layers": 1, "heads": 2, "ffn": 16, "dropout": 0.0} | change
    with pytest.raises(ValueError, match=message):
        CausalTransformer(**arguments)  # type: ignore[arg-type]


def test_refuses_another_width() -> None:
    with pytest.raises(ValueError, match=r"expected \[B, L, 8\], got \[2, 3, 7\]"):
        CausalTransformer(width=8, layers=1, heads=2, ffn=16, dropout=0.0)(torch.zeros(2, 3, 7))
