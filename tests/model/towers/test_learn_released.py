"""LEARN's towers against the network of the released code: a BertEncoder fed directly, under a causal mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertEncoder

from learn_spark.model.towers.learn import LearnTower
from learn_spark.model.towers.transformer import CausalBlock

SHAPE: dict[str, Any] = {
    "content_dim": 10,
    "width": 24,
    "layers": 3,
    "heads": 4,
    "ffn": 40,
    "output_dim": 6,
    "dropout": 0.1,
}


def test_released_shape_has_34_6_million_parameters() -> None:
    # 4 layers, Baichuan2's 4096 in and out: the scripts of the released Amazon code.
    with torch.device("meta"):
        tower = LearnTower(
            content_dim=4096, width=768, layers=4, heads=12, ffn=3072, output_dim=4096, dropout=0.1, item_tower="a"
        )
    attention = 4 * (768 * 768 + 768)
    feed_forward = 768 * 3072 + 3072 + 3072 * 768 + 768
    block = attention + feed_forward + 2 * 2 * 768
    assert tower.parameter_count() == (4096 * 768 + 768) + 4 * block + (768 * 4096 + 4096) == 34_647_808


def released(tower: LearnTower) -> BertEncoder:
    """A BertEncoder with the weights of the tower's transformer."""
    shape = tower.shape
    config = BertConfig(
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.ffn,
        hidden_act="gelu",
        attn_implementation="eager",
    )
    encoder = BertEncoder(config).to(torch.float64).eval()
    for block, layer in zip(tower.transformer.blocks, encoder.layer, strict=True):
        assert isinstance(block, CausalBlock)
        attention = layer.attention.self
        for part, weight, bias in zip(
            (attention.query, attention.key, attention.value),
            block.qkv.weight.chunk(3),
            block.qkv.bias.chunk(3),
            strict=True,
        ):
            part.weight.data, part.bias.data = weight.data, bias.data
        pairs: list[tuple[nn.Module, nn.Module]] = [
            (layer.attention.output.dense, block.attention_output),
            (layer.attention.output.LayerNorm, block.attention_norm),
            (layer.intermediate.dense, block.ffn_input),
            (layer.output.dense, block.ffn_output),
            (layer.output.LayerNorm, block.ffn_norm),
        ]
        for theirs, ours in pairs:
            theirs.load_state_dict(ours.state_dict())
    return encoder


def forward(tower: LearnTower, encoder: BertEncoder, content: Tensor, lengths: Tensor) -> Tensor:
    """The released code's way: adaptor, encoder under key mask times causal mask, projection, L2 norm."""
    length = content.shape[1]
    real = torch.arange(length) < lengths.unsqueeze(1)  # [B, L]
    allowed = real.unsqueeze(1) & torch.ones(length, length, dtype=torch.bool).tril()  # [B, L, L]
    mask = torch.zeros(allowed.shape, dtype=content.dtype).masked_fill(~allowed, -1e9).unsqueeze(1)
    hidden = encoder(tower.adaptor(content), attention_mask=mask).last_hidden_state
    return F.normalize(tower.projection(hidden), dim=-1)


@torch.no_grad()
@pytest.mark.parametrize("item_tower", ["a", "b"])
def test_towers_are_those_of_the_released_code(item_tower: Any) -> None:
    torch.manual_seed(0)
    tower = LearnTower(**SHAPE, item_tower=item_tower).double().eval()
    for parameter in tower.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.3)
    encoder = released(tower)
    content, lengths = torch.randn(4, 7, 10, dtype=torch.float64), torch.tensor([1, 3, 7, 5])
    expected = forward(tower, encoder, content, lengths)
    real = torch.arange(7) < lengths.unsqueeze(1)
    torch.testing.assert_close(tower.user(content)[real], expected[real], rtol=0, atol=1e-10)
    last = tower.user_last(content, lengths)
    torch.testing.assert_close(last, expected[torch.arange(4), lengths - 1], rtol=0, atol=1e-10)
    # The item side: the same network on a sequence of one.
    single = forward(tower, encoder, content.reshape(-1, 1, 10), torch.ones(28, dtype=torch.int64))
    torch.testing.assert_close(tower.items(content.reshape(-1, 10)), single[:, 0], rtol=0, atol=1e-10)
