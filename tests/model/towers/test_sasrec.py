"""SASRec: a slow block written from the authors' formulas, size, causality, padding, both similarities."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from learn_spark.model.towers.sasrec import SASRec, SASRecBlock

SMALL: dict[str, Any] = {
    "n_items": 30,
    "max_length": 8,
    "width": 12,
    "layers": 2,
    "heads": 3,
    "ffn": 20,
    "dropout": 0.2,
}


MIXED = (1, 4, 6)  # each row is a block
SHORT = (1, 2, 6, 1, 2, 1, 3)  # rows share blocks


def _tower(seed: int = 0, **change: Any) -> SASRec:
    """A small tower at inference whose weights are large enough for every path to show."""
    torch.manual_seed(seed)
    tower = SASRec(**(SMALL | change))
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
            if name == "embedding.weight":
                parameter[0] = 0.0
    return tower.eval()


def _histories(lengths: tuple[int, ...] = MIXED, width: int = 6) -> Tensor:
    items = torch.zeros(len(lengths), width, dtype=torch.int64)
    for row, length in enumerate(lengths):
        items[row, :length] = torch.randint(1, 31, (length,))
    return items


def _norm(x: Tensor) -> Tensor:
    """LayerNorm of one vector with unit scale and no shift."""
    return (x - x.mean()) / torch.sqrt(((x - x.mean()) ** 2).mean() + 1e-5)


def slow_block(block: SASRecBlock, hidden: Tensor) -> Tensor:
    """One row [L, width], position by position and head by head: LN(q + MHA(q, x, x)), then y + FFN(y)."""
    length, width = hidden.shape
    size = width // block.heads
    key_weight, value_weight = block.key_value.weight.split(width)
    key_bias, value_bias = block.key_value.bias.split(width)
    rows = []
    for i in range(length):
        normed = _norm(hidden[i]) * block.query_norm.weight + block.query_norm.bias
        query = block.query.weight @ normed + block.query.bias
        heads = []
        for head in range(block.heads):
            part = slice(head * size, (head + 1) * size)
            scores, values = [], []
            for j in range(i + 1):
                key = key_weight @ hidden[j] + key_bias
                value = value_weight @ hidden[j] + value_bias
                scores.append(math.exp(float(query[part] @ key[part]) / math.sqrt(size)))
                values.append(value[part])
            heads.append(sum(score / sum(scores) * value for score, value in zip(scores, values, strict=True)))
        summed = normed + block.attention_output.weight @ torch.cat(heads) + block.attention_output.bias  # type: ignore[arg-type]
        y = _norm(summed) * block.ffn_norm.weight + block.ffn_norm.bias
        inner = torch.clamp(block.ffn_input.weight @ y + block.ffn_input.bias, min=0)
        rows.append(y + block.ffn_output.weight @ inner + block.ffn_output.bias)
    return torch.stack(rows)


@torch.no_grad()
@pytest.mark.parametrize("positions", ["first", "last"])
@pytest.mark.parametrize("lengths", [MIXED, SHORT])
def test_agrees_with_a_slow_tower(lengths: tuple[int, ...], positions: str) -> None:
    tower = _tower(positions=positions).double()
    items = _histories(lengths)
    actual = tower.user(items)
    for row, length in enumerate(lengths):
        places = tower.position.weight[:length]
        places = places if positions == "first" else places.flip(0)
        hidden = tower.embedding.weight[items[row, :length]] + places
        for block in tower.blocks:
            hidden = slow_block(block, hidden)  # type: ignore[arg-type]
        for i in range(length):
            last = _norm(hidden[i]) * tower.norm.weight + tower.norm.bias
            torch.testing.assert_close(actual[row, i], last, rtol=0, atol=1e-10)


def test_size_is_that_of_the_published_recipe() -> None:
    # eSASRec's Beauty recipe (arXiv 2508.06450): 12,101 items, 64-d, 1 block, 50 positions, inner size 64.
    tower = SASRec(n_items=12_101, max_length=50, width=64, layers=1, heads=1, ffn=64, dropout=0.2)
    square = 64 * 64 + 64
    block = 4 * square + 2 * square + 2 * 2 * 64  # q, k, v, o; two feed-forward layers; two norms
    assert tower.parameter_count() == 12_102 * 64 + 50 * 64 + block + 2 * 64 == 803_072
    # RecTools 0.19 counts 800,832 on Beauty's training part, whose windows of 51 hold 12,066 items.
    theirs = SASRec(n_items=12_066, max_length=50, width=64, layers=1, heads=1, ffn=64, dropout=0.2)
    assert theirs.parameter_count() == 800_832
    # Another head costs nothing, another block costs one block.
    other = SASRec(n_items=12_101, max_length=50, width=64, layers=3, heads=4, ffn=64, dropout=0.2)
    assert other.parameter_count() - tower.parameter_count() == 2 * block


def test_later_events_never_reach_earlier_vectors_and_earlier_ones_do() -> None:
    tower = _tower()
    items = torch.randint(1, 15, (3, 7))
    before = tower.user(items)
    for changed in range(7):
        other = items.clone()
        other[:, changed] += 15
        after = tower.user(other)
        torch.testing.assert_close(after[:, :changed], before[:, :changed], rtol=0, atol=1e-6)
        assert ((after[:, changed:] - before[:, changed:]).abs().amax(dim=2) > 1e-3).all()


def test_a_prefix_alone_has_the_vectors_it_has_in_the_whole() -> None:
    tower = _tower(positions="first")
    items = torch.randint(1, 31, (2, 8))
    full = tower.user(items)
    for length in range(1, 9):
        single = tower.user(items[:, :length])
        torch.testing.assert_close(single, full[:, :length], rtol=0, atol=1e-5)
        last = tower.user_last(items, torch.tensor([length, length]))
        torch.testing.assert_close(last, single[:, -1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("lengths", [MIXED, SHORT])
def test_padding_does_not_matter(lengths: tuple[int, ...]) -> None:
    tower = _tower()
    items = _histories(lengths)
    real = items != 0
    single = [tower.user(items[row : row + 1, :length])[0] for row, length in enumerate(lengths)]
    longer = torch.cat([items, torch.zeros(len(items), 40, dtype=torch.int64)], dim=1)  # beyond max_length, but empty
    actual = tower.user(longer)
    assert actual.shape == (len(items), 46, 12)
    assert not actual[:, 6:].any()
    torch.testing.assert_close(actual[:, :6][real], torch.cat(single), rtol=0, atol=1e-5)
    tower.embedding.weight.data[0] = 100.0
    torch.testing.assert_close(tower.user(items)[real], torch.cat(single), rtol=0, atol=1e-5)


@torch.no_grad()
def test_order_matters_through_positions() -> None:
    tower = _tower(layers=1)
    items = torch.tensor([[3, 7, 9]])
    assert float((tower.user(items)[0, -1] - tower.user(items[:, [1, 0, 2]])[0, -1]).abs().max()) > 1e-2


def test_similarities() -> None:
    items = _histories()
    real = items != 0
    dot, cosine = _tower(), _tower(similarity="cosine")
    assert (dot.normalised, cosine.normalised) == (False, True)
    dot_user, cosine_user = dot.user(items)[real], cosine.user(items)[real]
    torch.testing.assert_close(cosine_user.norm(dim=1), torch.ones(len(cosine_user)))
    torch.testing.assert_close(dot_user / dot_user.norm(dim=1, keepdim=True), cosine_user)
    catalogue = torch.arange(31)
    torch.testing.assert_close(dot.items(catalogue), dot.embedding.weight)
    torch.testing.assert_close(cosine.items(catalogue).norm(dim=1), (catalogue != 0).float())
    torch.testing.assert_close(cosine.targets(items), cosine.items(items))
    assert cosine.items(items).shape == (3, 6, 12)


def test_input_and_output_share_the_embedding() -> None:
    tower = _tower()
    items = torch.tensor([[4, 5]])
    tower.user(items)[0, 0].sum().backward()
    assert tower.embedding.weight.grad is not None
    touched = tower.embedding.weight.grad.abs().sum(dim=1).nonzero().flatten().tolist()
    assert touched == [4]  # the vector after event 0 depends on event 0 only
    tower.items(torch.tensor([9])).sum().backward()
    assert tower.embedding.weight.grad[9].any()


def test_gradient_reaches_every_parameter_but_the_padding_row() -> None:
    tower = _tower(n_items=6)
    items = torch.tensor([[1, 2, 3, 4, 5, 6, 1, 2], [3, 1, 0, 0, 0, 0, 0, 0]])
    (tower.user(items)[items != 0] * torch.randn(10, 12)).sum().backward()
    for name, parameter in tower.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    assert tower.embedding.weight.grad is not None
    assert not tower.embedding.weight.grad[0].any()


def test_dropout_acts_in_training_only() -> None:
    tower = _tower()
    items = torch.randint(1, 31, (2, 8))
    assert torch.equal(tower.user(items), tower.user(items))
    tower.train()
    torch.manual_seed(1)
    first = tower.user(items)
    assert not torch.equal(first, tower.user(items))
    torch.manual_seed(1)
    assert torch.equal(first, tower.user(items))


def test_start() -> None:
    torch.manual_seed(0)
    tower = SASRec(n_items=5000, max_length=50, width=64, layers=1, heads=1, ffn=64, dropout=0.2)
    assert float(tower.embedding.weight[1:].detach().std()) == pytest.approx(0.02, rel=0.02)
    assert not tower.embedding.weight[0].any()
    block = tower.blocks[0]
    assert isinstance(block, SASRecBlock)
    assert float(block.query.weight.detach().std()) == pytest.approx(math.sqrt(2 / 128), rel=0.05)
    assert not block.query.bias.any()


def test_arguments_survive_json() -> None:
    tower = _tower(activation="gelu", similarity="cosine")
    again = SASRec(**json.loads(json.dumps(tower.to_dict())))
    again.load_state_dict(tower.state_dict())
    items = _histories()
    assert torch.equal(again.eval().user(items), tower.user(items))
    assert again.to_dict() == tower.to_dict()
    relu = SASRec(**(tower.to_dict() | {"activation": "relu"}))
    relu.load_state_dict(tower.state_dict())
    assert not torch.allclose(relu.eval().user(items), tower.user(items), atol=1e-3)


def test_empty_batches_have_empty_vectors() -> None:
    tower = _tower()
    assert tower.user(torch.zeros(0, 5, dtype=torch.int64)).shape == (0, 5, 12)
    assert tower.user(torch.zeros(2, 5, dtype=torch.int64)).shape == (2, 5, 12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 5}, "width 12 is not a multiple of heads 5"),
        ({"layers": 0}, "layers 0 must be at least 1"),
        ({"n_items": 0}, "n_items 0 must be at least 1"),
        ({"dropout": 1.0}, r"dropout 1.0 must be in \[0, 1\)"),
        ({"activation": "tanh"}, "activation 'tanh' must be one of"),
        ({"similarity": "euclid"}, "similarity 'euclid' must be one of"),
        ({"positions": "middle"}, "positions 'middle' must be one of"),
    ],
)
def test_refuses_contradictory_arguments(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SASRec(**(SMALL | change))


def test_refuses_histories_that_do_not_fit() -> None:
    tower = _tower()
    with pytest.raises(ValueError, match="a row has 9 events, but the tower has 8 positions"):
        tower.user(torch.ones(2, 9, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"expected items \[B, L\], got \[4\]"):
        tower.user(torch.ones(4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"expected times of the items' shape \[2, 4\], got \[2, 3\]"):
        tower.user(torch.ones(2, 4, dtype=torch.int64), torch.ones(2, 3, dtype=torch.int64))
