"""Models of many shapes, random and tiny: what comes out is what transformers gives one text at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from learn_spark.encoder.engine import TextEncoder
from learn_spark.encoder.identity import EncoderError
from tests.encoder.tiny import CONFIGS, VOCABULARY, tiny_model

TEXTS = [
    "Title: Toy Story. Genres: Animation.",
    "x",
    "a longer text " * 3,
    "emoji 🎬🎞️ and עברית from right to left",
    "control \x00\x01\x1f characters \u200b\ufeff here",
    "x",
    "many words " * 100,
]


@pytest.fixture(params=list(CONFIGS), scope="module")
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, llm_folder: Path) -> Path:
    return tiny_model(request.param, tmp_path_factory.mktemp(request.param), llm_folder)


def reference(folder: Path, texts: list[str], pooling: str) -> np.ndarray:
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in texts:
        tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=64)
        with torch.no_grad():
            hidden = model(input_ids=tokens["input_ids"]).last_hidden_state[0]
        rows.append({"mean": hidden.mean(0), "last": hidden[-1], "cls": hidden[0]}[pooling].numpy())
    return np.stack(rows)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
def test_each_vector_is_the_one_of_its_text_alone(tiny: Path, pooling: str, packing: bool) -> None:
    if pooling == "cls" and "bert" not in tiny.name:
        with pytest.raises(EncoderError, match="the first token of a causal model attends only to itself"):
            TextEncoder(tiny, max_tokens=64, pooling="cls")
        return
    encoder = TextEncoder(tiny, max_tokens=64, normalise=True, token_budget=300, pooling=pooling, packing=packing)
    assert encoder.reader.causal == ("bert" not in tiny.name)
    assert encoder.reader.packed == packing
    encoded = encoder.encode(TEXTS)
    assert (encoded.padded_tokens == encoded.n_tokens.sum()) == packing
    assert encoded.errors == {}
    assert encoded.truncated.tolist() == [False] * 6 + [True]
    expected = reference(tiny, TEXTS, pooling)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert (encoded.vectors * expected).sum(1).min() >= 0.9999
    # The texts differ enough for that to mean something.
    assert (expected @ expected.T)[0, 1] < 0.99


def test_a_model_that_reads_less_than_asked_reads_what_it_can(tiny: Path) -> None:
    encoder = TextEncoder(tiny, max_tokens=500)
    learnt_positions = tiny.name.startswith(("gpt2", "bert"))
    assert encoder.max_tokens == (64 if learnt_positions else 500)
    assert encoder.encode(["many words " * 600]).n_tokens.tolist() == [encoder.max_tokens]


def test_a_text_of_a_megabyte_is_read_as_far_as_tokens_go(tiny: Path) -> None:
    encoder = TextEncoder(tiny, max_tokens=64)
    encoded = encoder.encode(["many words " * 100_000, "many words " * 64])
    assert encoded.truncated.tolist() == [True, True]
    assert encoded.n_tokens.tolist() == [64, 64]
    assert (encoded.vectors[0] * encoded.vectors[1]).sum() >= 0.9999


def test_an_instruction_before_every_text(tiny: Path) -> None:
    plain, asked = TextEncoder(tiny, max_tokens=64), TextEncoder(tiny, max_tokens=64, prefix="Represent this: ")
    assert np.allclose(asked.encode(["a film"]).vectors, plain.encode(["Represent this: a film"]).vectors, atol=1e-5)
    assert asked.encode([" "]).errors == {0: "blank text"}


def test_half_precision_and_int8_stay_close(tiny: Path) -> None:
    exact = TextEncoder(tiny, max_tokens=64).encode(TEXTS[:6]).vectors
    for precision in ("bf16", "int8"):
        if precision == "int8" and tiny.name.startswith("gpt2"):
            # Its layers are of a kind of their own.
            with pytest.raises(EncoderError, match="GPT2Model has no linear layer to quantise"):
                TextEncoder(tiny, precision=precision)
            continue
        near = TextEncoder(tiny, max_tokens=64, precision=precision).encode(TEXTS[:6]).vectors
        cosines = (exact * near).sum(1)
        assert (cosines > 0.9).all(), precision
        assert not np.allclose(exact, near, atol=1e-6)


def test_a_text_that_the_model_fails_on_is_named_and_the_others_are_encoded(tiny: Path) -> None:
    encoder = TextEncoder(tiny, max_tokens=64, token_budget=300)
    expected = encoder.encode(TEXTS).vectors
    ids = encoder.tokenise(TEXTS)
    # A token that the vocabulary does not have, as a damaged tokenizer would give it.
    ids.ids[ids.starts[2]] = VOCABULARY + 7
    encoded = encoder.encode_tokens(ids)
    assert list(encoded.errors) == [2]
    assert encoded.errors[2].startswith("the model failed: IndexError")
    others = [0, 1, 3, 4, 5, 6]
    assert (encoded.vectors[others] * expected[others]).sum(1).min() >= 0.9999
    ids.ids[ids.starts[:-1]] = VOCABULARY + 7
    with pytest.raises(EncoderError, match="the model fails on each of 7 texts"):
        encoder.encode_tokens(ids)
