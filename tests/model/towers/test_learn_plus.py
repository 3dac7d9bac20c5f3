"""LEARN+: a slow block head by head, causality, padding, packing, items without an ID, the time between events."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from learn_spark.model.towers.learn_plus import LearnPlus, PlusBlock
from learn_spark.model.towers.registry import shape_of, tower_of_shape
from learn_spark.model.towers.time_gaps import GAPS, gap_buckets

N, C = 30, 7
SMALL: dict[str, Any] = {
    "n_items": N,
    "content_dim": C,
    "max_length": 8,
    "width": 12,
    "layers": 2,
    "heads": 3,
    "ffn": 20,
    "dropout": 0.2,
}
MIXED, SHORT = (1, 4, 6), (1, 2, 6, 1, 2, 1, 3)  # each row is a block; rows share blocks


def _content(rows: int = N + 1, seed: int = 0) -> np.ndarray:
    content = np.random.default_rng(seed).normal(size=(rows, C)).astype(np.float32)
    content[0] = 0.0
    return content


def _tower(seed: int = 0, **change: Any) -> LearnPlus:
    """A small tower at inference whose weights are large enough for every path to show."""
    torch.manual_seed(seed)
    tower = LearnPlus(**(SMALL | change))
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        if tower.identity is not None:
            tower.identity.weight[0] = 0.0
    tower.bind(_content())
    return tower.eval()


def _histories(lengths: tuple[int, ...] = MIXED, width: int = 6, seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    items = torch.zeros(len(lengths), width, dtype=torch.int64)
    for row, length in enumerate(lengths):
        items[row, :length] = torch.randint(1, N + 1, (length,))
    return items


def _times(items: Tensor) -> Tensor:
    return torch.cumsum(torch.randint(0, 4 * 86_400_000_000, items.shape), dim=1)


def _norm(x: Tensor) -> Tensor:
    return (x - x.mean()) / torch.sqrt(((x - x.mean()) ** 2).mean() + 1e-5)


def _affine(norm: torch.nn.Module) -> Callable[[Tensor], Tensor]:
    assert isinstance(norm, torch.nn.LayerNorm)
    return lambda x: _norm(x) * norm.weight + norm.bias


def slow_block(block: PlusBlock, hidden: Tensor) -> Tensor:
    """One row [L, width], position by position and head by head; layers normalise before or after, as ``block``."""
    length, width = hidden.shape
    size = width // block.heads
    q_weight, k_weight, v_weight = block.qkv.weight.split(width)
    q_bias, k_bias, v_bias = block.qkv.bias.split(width)
    attention_norm, ffn_norm = _affine(block.attention_norm), _affine(block.ffn_norm)
    normed = list(hidden) if block.post else [attention_norm(x) for x in hidden]
    rows = []
    for i in range(length):
        heads = []
        for head in range(block.heads):
            part = slice(head * size, (head + 1) * size)
            scores = []
            for j in range(i + 1):
                q, k = q_weight @ normed[i] + q_bias, k_weight @ normed[j] + k_bias
                score = q[part] @ k[part] / math.sqrt(size) + block.distance_bias[head, i - j]
                scores.append(math.exp(float(score.detach())))
            values = [(v_weight @ normed[j] + v_bias)[part] for j in range(i + 1)]
            heads.append(sum(s / sum(scores) * v for s, v in zip(scores, values, strict=True)))
        x = hidden[i] + block.attention_output.weight @ torch.cat(heads) + block.attention_output.bias  # type: ignore[arg-type]
        x = attention_norm(x) if block.post else x
        inner = block.ffn_input.weight @ (x if block.post else ffn_norm(x)) + block.ffn_input.bias
        x = x + block.ffn_output.weight @ torch.nn.functional.gelu(inner) + block.ffn_output.bias
        rows.append(ffn_norm(x) if block.post else x)
    return torch.stack(rows)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("lengths", [MIXED, SHORT])
def test_a_slow_tower_gives_the_same_vectors(lengths: tuple[int, ...], norm: str) -> None:
    tower, items = _tower(norm=norm), _histories(lengths)
    content = torch.from_numpy(_content())
    assert tower.identity is not None
    vectors = content @ tower.adaptor.weight.T + tower.adaptor.bias + tower.identity.weight  # [N + 1, width]
    actual = tower.user(items)
    for row, length in enumerate(lengths):
        hidden = vectors[items[row, :length]]
        if norm == "post":
            hidden = torch.stack([_affine(tower.input_norm)(x) for x in hidden])
        for block in tower.blocks:
            assert isinstance(block, PlusBlock)
            hidden = slow_block(block, hidden)
        out = hidden if norm == "post" else torch.stack([_affine(tower.norm)(x) for x in hidden])
        expected = out / out.norm(dim=1, keepdim=True)
        assert torch.allclose(actual[row, :length], expected, atol=2e-5)
        assert torch.allclose(tower.user_last(items, torch.tensor(lengths))[row], expected[-1], atol=2e-5)
    ranked = tower.items(torch.arange(1, N + 1))
    assert torch.allclose(ranked, torch.nn.functional.normalize(vectors[1:], dim=1), atol=1e-6)


def test_nothing_ahead_and_no_padding_is_seen() -> None:
    tower, items = _tower(time_gaps=True), _histories()
    times = _times(items)
    before = tower.user(items, times)
    changed = items.clone()
    changed[2, 4:] = torch.tensor([3, 9])
    assert torch.equal(tower.user(changed, times)[2, :4], before[2, :4])
    last = tower.user_last(changed, torch.tensor([1, 3, 4]), times)
    assert torch.allclose(last, torch.stack([before[0, 0], before[1, 2], before[2, 3]]), atol=1e-6)
    wide = torch.nn.functional.pad(items, (0, 2))
    assert torch.allclose(tower.user(wide, torch.nn.functional.pad(times, (0, 2)))[:, :6], before, atol=1e-6)
    for row, length in enumerate(MIXED):
        single = tower.user(items[row : row + 1, :length], times[row : row + 1, :length])
        assert torch.allclose(single[0], before[row, :length], atol=1e-5)


def test_the_time_between_events_matters_and_their_date_does_not() -> None:
    tower, items = _tower(time_gaps=True), _histories()
    times = _times(items)
    actual = tower.user(items, times)
    assert torch.allclose(tower.user(items, times + 10**15), actual)
    assert not torch.allclose(tower.user(items, times * 9)[1, 3], actual[1, 3], atol=1e-3)
    with pytest.raises(ValueError, match="needs times"):
        tower.user(items)


def test_buckets_of_time_worked_out_by_hand() -> None:
    """2 + floor(log2(s) * 22 / 28): a day, 86,400 s, has log2 16.4, so 2 + 12; 10 years are beyond the last."""
    second = 1_000_000
    times = torch.tensor([[7, 7, 8, 8 + second, 8 + 3 * second, 8 + 86_403 * second, 8 + 400_000_000 * second]])
    assert gap_buckets(times).tolist() == [[0, 1, 1, 2, 2, 14, GAPS - 1]]


def test_items_without_an_id_are_their_content_only() -> None:
    """Items that training never saw, that came later, and all items where there are no IDs."""
    tower = _tower()
    tower.bind(_content(N + 5))
    assert tower.n_items == N + 4
    later = tower.items(torch.arange(N + 1, N + 5))
    content = torch.from_numpy(_content(N + 5))[N + 1 :]
    plain = torch.nn.functional.normalize(content @ tower.adaptor.weight.T + tower.adaptor.bias, dim=1)
    assert torch.allclose(later, plain, atol=1e-6)
    assert tower_of_shape(json.loads(json.dumps(shape_of(tower)))).to_dict() == tower.to_dict()
    assert tower.to_dict()["n_items"] == N  # rows of IDs, whatever is bound
    without = _tower(ids=False)
    assert "identity.weight" not in without.state_dict()
    fresh = LearnPlus(**SMALL)
    assert fresh.identity is not None
    assert not fresh.identity.weight.any()


def test_unit_content_is_read_as_if_all_content_had_length_1() -> None:
    tower, items = _tower(unit_content=True), _histories()
    vectors = tower.user_last(items, torch.tensor(MIXED))
    longer = _content()
    longer[1:] *= np.random.default_rng(5).uniform(0.2, 30.0, size=(N, 1)).astype(np.float32)
    tower.bind(longer)
    torch.testing.assert_close(tower.user_last(items, torch.tensor(MIXED)), vectors)
    plain = _tower()
    plain.load_state_dict(tower.state_dict())
    plain.bind(longer / np.maximum(np.linalg.norm(longer, axis=1, keepdims=True), 1e-9))
    torch.testing.assert_close(plain.user_last(items, torch.tensor(MIXED)), vectors)
    torch.testing.assert_close(plain.items(items), tower.items(items))


def test_vectors_compared_by_dot_have_the_directions_of_those_compared_by_cosine() -> None:
    dot, items, lengths = _tower(similarity="dot"), _histories(), torch.tensor(MIXED)
    cosine = _tower()
    assert not dot.normalised
    every = torch.arange(1, N + 1)
    assert dot.identity is not None
    by_hand = dot.project(dot.content(every)) + dot.identity(every)
    torch.testing.assert_close(dot.items(every), by_hand)
    for ours, unit in (
        (dot.items(every), cosine.items(every)),
        (dot.user_last(items, lengths), cosine.user_last(items, lengths)),
        (dot.user(items)[items != 0], cosine.user(items)[items != 0]),
    ):
        assert float((ours.norm(dim=-1) - 1).detach().abs().min()) > 0.01
        torch.testing.assert_close(torch.nn.functional.normalize(ours, dim=-1), unit)


def test_id_dropout_leaves_content() -> None:
    tower = _tower(id_dropout=0.5, dropout=0.0).train()
    torch.manual_seed(0)
    items = torch.arange(1, N + 1)
    actual = tower.items(items)
    tower.eval()
    with_id = tower.items(items)
    assert tower.identity is not None
    with torch.no_grad():
        tower.identity.weight.zero_()
    content = tower.items(items)
    same_id = torch.isclose(actual, with_id, atol=1e-6).all(dim=1)
    same_content = torch.isclose(actual, content, atol=1e-6).all(dim=1)
    assert (same_id ^ same_content).all()
    assert 5 < int(same_content.sum()) < 25


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width 0 must be at least 1"),
        ({"heads": 5}, "not a multiple of heads 5"),
        ({"dropout": 1.0}, r"dropout 1.0 must be in \[0, 1\)"),
        ({"id_dropout": -0.1}, r"id_dropout -0.1 must be in \[0, 1\)"),
        ({"similarity": "euclid"}, "similarity 'euclid'"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LearnPlus(**(SMALL | change))


def test_too_many_events_and_missing_content_are_refused() -> None:
    tower = _tower()
    with pytest.raises(ValueError, match="a row has 9 events, but the tower has 8"):
        tower.user(torch.ones(1, 9, dtype=torch.int64))
    with pytest.raises(ValueError, match="expected content"):
        tower.bind(_content()[:, :3])
    with pytest.raises(RuntimeError, match="no content"):
        LearnPlus(**SMALL).items(torch.tensor([1]))
