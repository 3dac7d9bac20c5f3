"""Packed texts: what FlashAttention's arguments mean, done slowly; a model that cannot be packed is padded instead."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AttentionInterface, AutoModel, Qwen2Config, RobertaConfig

from learn_spark.encoder.attention import BY_LENGTH, attend_by_length
from learn_spark.encoder.engine import TextEncoder
from learn_spark.encoder.reader import Reader
from tests.encoder.test_architectures import TEXTS, reference
from tests.encoder.tiny import SMALL, VOCABULARY, tiny_model


def block_diagonal(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    cu_seq_lens_k: torch.Tensor,
    max_length_q: int,
    max_length_k: int,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """FlashAttention's meaning of the arguments, spelt out: dense scores, masked to the diagonal blocks."""
    assert attention_mask is None
    assert cu_seq_lens_q.dtype == cu_seq_lens_k.dtype == torch.int32
    assert torch.equal(cu_seq_lens_q, cu_seq_lens_k)
    assert max_length_q == max_length_k >= int(cu_seq_lens_q.diff().max())
    tokens = query.shape[2]
    assert int(cu_seq_lens_q[-1]) == tokens
    text = torch.searchsorted(cu_seq_lens_q[1:].contiguous(), torch.arange(tokens), right=True)
    allowed = text[:, None] == text[None, :]
    if module.is_causal:
        allowed &= torch.ones(tokens, tokens, dtype=torch.bool).tril()
    times = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(times, dim=1) for x in (key, value))
    scores = query @ key.transpose(2, 3) * (scaling if scaling is not None else query.shape[3] ** -0.5)
    weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
    return (weights @ value).transpose(1, 2), None


def without_boundaries(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **arguments: Any) -> Any:
    """What a packed batch would give if nobody looked at where texts begin."""
    one = torch.tensor([0, query.shape[2]], dtype=torch.int32)
    arguments.update(cu_seq_lens_q=one, cu_seq_lens_k=one, max_length_q=query.shape[2], max_length_k=query.shape[2])
    return block_diagonal(module, query, key, value, attention_mask, **arguments)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=9), st.sampled_from([(4, 4), (4, 2), (3, 1)]), st.booleans())
def test_attention_by_length_is_block_diagonal_attention(
    lengths: list[int], heads: tuple[int, int], causal: bool
) -> None:
    generator = torch.Generator().manual_seed(len(lengths))
    tokens = sum(lengths)
    query, key, value = (
        torch.randn(1, tokens, n, 8, generator=generator).transpose(1, 2) for n in (heads[0], heads[1], heads[1])
    )
    ends = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    arguments = {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": 7, "max_length_k": 7, "scaling": 0.3}
    module: Any = SimpleNamespace(is_causal=causal)
    actual, _ = attend_by_length(module, query, key, value, None, **arguments)
    expected, _ = block_diagonal(module, query, key, value, None, **arguments)
    assert actual.shape == (1, tokens, heads[0], 8)
    assert torch.allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize(
    "odd", [{"softcap": 5.0}, {"s_aux": torch.zeros(1)}, {"sliding_window": 6}, {"position_bias": torch.zeros(1)}]
)
def test_attention_by_length_refuses_what_it_cannot_do(odd: dict[str, Any]) -> None:
    states = torch.randn(1, 2, 5, 4)
    ends, module = torch.tensor([0, 5], dtype=torch.int32), torch.nn.Identity()
    with pytest.raises(ValueError, match="packed attention does not support"):
        attend_by_length(module, states, states, states, None, cu_seq_lens_q=ends, max_length_q=7, **odd)
    with pytest.raises(ValueError, match="packed attention does not support"):
        attend_by_length(module, states, states, states, torch.ones(1), cu_seq_lens_q=ends, max_length_q=5)


@pytest.fixture(params=["qwen3", "baichuan-like", "gpt2", "bert"], scope="module")
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, llm_folder: Path) -> Path:
    return tiny_model(request.param, tmp_path_factory.mktemp(request.param), llm_folder)


def test_what_the_model_is_given_is_what_flash_attention_wants(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AttentionInterface._global_mapping, BY_LENGTH, block_diagonal)
    encoder = TextEncoder(tiny, max_tokens=64, token_budget=150)
    assert encoder.reader.packed
    expected = reference(tiny, TEXTS, "mean")
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert (encoder.encode(TEXTS).vectors * expected).sum(1).min() >= 0.9999


def test_an_attention_that_ignores_boundaries_is_found_out(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AttentionInterface._global_mapping, BY_LENGTH, without_boundaries)
    encoder = TextEncoder(tiny, max_tokens=64, token_budget=150)
    assert not encoder.reader.packed
    expected = reference(tiny, TEXTS, "mean")
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert (encoder.encode(TEXTS).vectors * expected).sum(1).min() >= 0.9999
    # Had it been believed, the vectors would be wrong.
    encoder.reader.packed = True
    encoder.model.set_attn_implementation(BY_LENGTH)
    assert (encoder.encode(TEXTS).vectors * expected).sum(1).min() < 0.999


def test_a_window_shorter_than_texts_is_padded_and_a_longer_one_packed() -> None:
    shape = {**SMALL, "vocab_size": VOCABULARY, "num_key_value_heads": 2, "use_sliding_window": True}
    config = Qwen2Config(**shape, sliding_window=8, max_window_layers=0)
    torch.manual_seed(0)
    model = AutoModel.from_config(config, attn_implementation="sdpa").eval()
    assert not Reader(model, pad=0, longest=64).packed
    assert model.config._attn_implementation == "sdpa"
    assert Reader(model, pad=0, longest=8).packed


def test_positions_that_begin_after_the_padding_index() -> None:
    config = RobertaConfig(**SMALL, vocab_size=VOCABULARY, max_position_embeddings=66, pad_token_id=1)
    torch.manual_seed(0)
    model = AutoModel.from_config(config, attn_implementation="sdpa").eval()
    ids, starts = np.arange(10, 90), np.array([0, 64, 80])
    with torch.inference_mode():
        last = model(input_ids=torch.from_numpy(ids[None, 64:])).last_hidden_state[0]
        reader = Reader(model, pad=1, longest=64)
        actual = reader.hidden_states(ids, starts)
    assert reader.packed
    assert torch.allclose(actual[64:], last, atol=1e-4)
