"""The twin towers: size, causality, padding, and the differences between the item tower's variants."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
import torch

from learn_spark.model.towers.content import ContentTower
from learn_spark.model.towers.learn import LearnTower, TowerShape

SMALL: dict[str, Any] = {
    "content_dim": 10,
    "width": 16,
    "layers": 2,
    "heads": 4,
    "ffn": 32,
    "output_dim": 6,
    "dropout": 0.1,
}
VARIANTS = ["a", "b", "c"]


def _tower(item_tower: str = "a", seed: int = 0, **change: int) -> LearnTower:
    """A small tower at inference whose weights are large enough for every path to show."""
    torch.manual_seed(seed)
    tower = LearnTower(**(SMALL | change), item_tower=item_tower)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return tower.eval()


def test_paper_size_is_88_25_million() -> None:
    shape = TowerShape(
        content_dim=4096, width=768, layers=12, heads=12, ffn=3072, output_dim=64, dropout=0.1, item_tower="a"
    )
    with torch.device("meta"):
        tower = LearnTower.of(shape)
    assert round(tower.parameter_count() / 1e6, 2) == 88.25
    with torch.device("meta"):
        direct = LearnTower(**(shape.to_dict() | {"item_tower": "c"}))
    assert direct.parameter_count() - tower.parameter_count() == 4096 * 64 + 64


def test_later_items_never_reach_earlier_vectors_and_earlier_ones_do() -> None:
    tower = _tower()
    content = torch.randn(3, 7, 10)
    before = tower.user(content)
    for changed in range(7):
        other = content.clone()
        other[:, changed] += 1.0
        after = tower.user(other)
        torch.testing.assert_close(after[:, :changed], before[:, :changed], rtol=0, atol=1e-6)
        assert ((after[:, changed:] - before[:, changed:]).abs().amax(dim=2) > 1e-3).all()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("lengths", [[9, 1, 2, 0, 3, 1, 1, 2], [9, 8, 7, 9], [1], [3, 3]])
def test_packed_histories_have_the_vectors_and_gradients_of_padded_ones(variant: str, lengths: list[int]) -> None:
    generator = np.random.default_rng(1)
    items = torch.from_numpy(generator.integers(1, 41, (len(lengths), 12)))
    real = torch.arange(12) < torch.tensor(lengths)[:, None]
    items = items * real
    matrix = generator.normal(size=(41, 10)).astype(np.float32)
    packed = ContentTower(n_items=40, **SMALL, item_tower=variant).eval()
    packed.learn.load_state_dict(_tower(variant).state_dict())
    packed.bind(matrix)
    padded = _tower(variant)
    content = torch.from_numpy(matrix)[items]
    weight = torch.from_numpy(generator.normal(size=(2, len(lengths), 12, 6)).astype(np.float32))
    for ours, theirs in (
        ((packed.user(items), packed.targets(items)), (padded.user(content), padded.targets(content))),
    ):
        for side in range(2):
            assert torch.allclose(ours[side][real], theirs[side][real], atol=1e-5)
        for vectors in (ours, theirs):
            sum((v * w)[real].sum() for v, w in zip(vectors, weight, strict=True)).backward()
    for (name, one), other in zip(packed.learn.named_parameters(), padded.parameters(), strict=True):
        assert one.grad is not None, name
        assert other.grad is not None, name
        assert torch.allclose(one.grad, other.grad, atol=1e-4, rtol=1e-4), name
    some = torch.tensor(lengths) > 0
    last = packed.user_last(items[some], torch.tensor(lengths)[some])
    assert torch.allclose(last, padded.user_last(content[some], torch.tensor(lengths)[some]), atol=1e-5)


def test_order_comes_from_the_mask_only() -> None:
    content = torch.randn(1, 4, 10)
    swapped = content[:, [1, 0, 2, 3]]
    change = {}
    for layers in (1, 2):
        tower = _tower(layers=layers)
        with torch.no_grad():
            change[layers] = float((tower.user(content)[:, -1] - tower.user(swapped)[:, -1]).abs().max())
    # One block sees what came before as a set; the next one sees vectors that differ by where they stood.
    assert change[1] < 1e-6
    assert change[2] > 1e-4


@pytest.mark.parametrize("planted", [100.0, -1e6])
def test_padding_never_reaches_real_positions(planted: float) -> None:
    tower = _tower()
    lengths = torch.tensor([1, 4, 6])
    content = torch.randn(3, 6, 10)
    dirty = content.clone()
    for row, length in enumerate(lengths.tolist()):
        dirty[row, length:] = planted
    torch.testing.assert_close(tower.user_last(dirty, lengths), tower.user_last(content, lengths), rtol=0, atol=1e-6)
    for row, length in enumerate(lengths.tolist()):
        single = tower.user(content[row : row + 1, :length])
        torch.testing.assert_close(tower.user(dirty)[row, :length], single[0], rtol=0, atol=1e-6)


def test_user_last_is_the_vector_of_the_last_real_position() -> None:
    tower = _tower()
    content = torch.randn(4, 5, 10)
    lengths = torch.tensor([5, 1, 3, 2], dtype=torch.int32)
    everywhere = tower.user(content)
    expected = torch.stack([everywhere[row, length - 1] for row, length in enumerate(lengths.tolist())])
    torch.testing.assert_close(tower.user_last(content, lengths), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [([0, 3], r"1 of 2 lengths are outside 1\.\.3, the first is 0"), ([1, 4], "first is 4"), ([-1, 9], "2 of 2")],
)
def test_user_last_refuses_lengths_outside_the_history(lengths: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _tower().user_last(torch.zeros(2, 3, 10), torch.tensor(lengths))


def test_user_last_refuses_another_number_of_lengths() -> None:
    with pytest.raises(ValueError, match=r"expected lengths \[2\], got \[3\]"):
        _tower().user_last(torch.zeros(2, 3, 10), torch.tensor([1, 1, 1]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_vector_has_length_one(variant: str) -> None:
    tower = _tower(variant)
    content = torch.randn(3, 5, 10)
    last = tower.user_last(content, torch.tensor([1, 2, 5]))
    for vectors in (tower.user(content), last, tower.targets(content), tower.items(content[0])):
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(vectors.shape[:-1]))
        assert vectors.shape[-1] == 6


def test_causal_and_single_targets_agree_on_one_item_and_differ_on_more() -> None:
    causal, single = _tower("a"), _tower("b")
    single.load_state_dict(causal.state_dict())
    content = torch.randn(8, 3, 10)
    torch.testing.assert_close(causal.targets(content[:, :1]), single.targets(content[:, :1]), rtol=0, atol=1e-6)
    difference = (causal.targets(content) - single.targets(content)).abs().amax(dim=2)  # [B, T]
    assert (difference[:, 0] < 1e-6).all()
    assert (difference[:, 1:] > 1e-3).all()


def test_causal_targets_are_the_user_tower() -> None:
    tower = _tower("a")
    content = torch.randn(2, 4, 10)
    assert torch.equal(tower.targets(content), tower.user(content))


def test_single_targets_ignore_their_neighbours() -> None:
    content = torch.randn(2, 4, 10)
    shuffled = content[:, [2, 0, 3, 1]]
    for variant in ("b", "c"):
        tower = _tower(variant)
        torch.testing.assert_close(tower.targets(shuffled), tower.targets(content)[:, [2, 0, 3, 1]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_items_are_targets_of_length_one(variant: str) -> None:
    tower = _tower(variant)
    content = torch.randn(9, 10)
    single = torch.cat([tower.targets(content[i : i + 1].unsqueeze(0))[0] for i in range(9)])
    torch.testing.assert_close(tower.items(content), single, rtol=0, atol=1e-6)


def test_direct_items_bypass_the_transformer() -> None:
    tower = _tower("c")
    assert tower.item_projection is not None
    content = torch.randn(4, 10)
    with torch.no_grad():
        expected = torch.nn.functional.normalize(tower.item_projection(content), dim=-1)
        for parameter in tower.transformer.parameters():
            parameter.zero_()
        torch.testing.assert_close(tower.items(content), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_reaches_every_parameter(variant: str) -> None:
    tower = _tower(variant).train()
    content = torch.randn(3, 4, 10)
    # The mean of normalised vectors would leave the last LayerNorm's scale without a say; a fixed random sum does not.
    aim = torch.randn(3, 4, 6)
    ((tower.user(content) + tower.targets(content)) * aim).sum().backward()
    for name, parameter in tower.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("variant", ["a", "b"])
def test_gradient_reaches_the_adaptor_through_targets(variant: str) -> None:
    tower = _tower(variant).train()
    (tower.targets(torch.randn(3, 4, 10)) * torch.randn(3, 4, 6)).sum().backward()
    assert tower.adaptor.linear.weight.grad is not None
    assert tower.adaptor.linear.weight.grad.abs().max() > 1e-6


def test_same_seed_same_weights() -> None:
    one, same, other = _tower(seed=3), _tower(seed=3), _tower(seed=4)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    assert not torch.equal(one.projection.weight, other.projection.weight)


def test_content_is_the_adaptor() -> None:
    tower = _tower()
    content = torch.randn(2, 3, 10)
    expected = content @ tower.adaptor.linear.weight.T + tower.adaptor.linear.bias
    torch.testing.assert_close(tower.content(content), expected)


def test_empty_batches_have_empty_vectors() -> None:
    tower = _tower("b")
    assert tower.items(torch.zeros(0, 10)).shape == (0, 6)
    assert tower.user_last(torch.zeros(0, 3, 10), torch.zeros(0, dtype=torch.int64)).shape == (0, 6)


def test_shape_survives_json() -> None:
    shape = _tower("b").shape
    assert TowerShape.from_dict(json.loads(json.dumps(shape.to_dict()))) == shape
    with pytest.raises(FrozenInstanceError):
        shape.width = 32  # type: ignore[misc]


def test_shape_names_missing_and_unknown_keys() -> None:
    values = SMALL | {"item_tower": "a", "depth": 3}
    del values["width"]
    with pytest.raises(ValueError, match=r"missing \['width'\], unknown \['depth'\]"):
        TowerShape.from_dict(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_tower": "d"}, "item_tower 'd'"),
        ({"heads": 3}, "width 16 is not a multiple of heads 3"),
        ({"output_dim": 0}, "output_dim 0"),
        ({"dropout": -0.1}, "dropout -0.1"),
    ],
)
def test_refuses_contradictory_arguments(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LearnTower(**({**SMALL, "item_tower": "a"} | change))


@pytest.mark.parametrize("shape", [(2, 3, 9), (3, 10), (1, 2, 3, 10)])
def test_refuses_content_of_another_shape(shape: tuple[int, ...]) -> None:
    tower = _tower()
    with pytest.raises(ValueError, match="expected content of 3 dimensions, the last 10"):
        tower.user(torch.zeros(shape))
    with pytest.raises(ValueError, match="expected content of 3 dimensions, the last 10"):
        tower.targets(torch.zeros(shape))
