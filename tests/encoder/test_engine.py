"""The engine: equal to transformers one text at a time, whatever the batch; masks, truncation and bad vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel, AutoTokenizer

from learn_spark.core.settings.encoder import EncoderSettings
from learn_spark.data.sources.location import resolve
from learn_spark.encoder.batching import token_budget_batches
from learn_spark.encoder.engine import TextEncoder
from learn_spark.encoder.identity import EncoderError, identify
from learn_spark.encoder.loading import load, prepare
from learn_spark.encoder.pooling import POOLINGS, mean_pool
from tests.conftest import SMOLLM

TEXTS = [
    "Title: Toy Story. Genres: Animation Children's Comedy. Year: 1995.",
    "short",
    "a much longer text " * 12,
    "emoji 🎬🎞️ and עברית from right to left",
    "Title: Toy Story. Genres: Animation Children's Comedy. Year: 1995.",
    "x",
]


@pytest.fixture(scope="module")
def one_at_a_time(llm_folder: Path) -> np.ndarray:
    """The reference: plain transformers, one text, no padding, fp32, mean of the last hidden states."""
    model, tokenizer = (
        AutoModel.from_pretrained(llm_folder, dtype=torch.float32).eval(),
        AutoTokenizer.from_pretrained(llm_folder),
    )
    rows = []
    for text in TEXTS:
        with torch.no_grad():
            rows.append(model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("budget", [1, 64, 4096])
def test_equal_to_one_text_at_a_time_whatever_the_batch(
    llm_folder: Path, one_at_a_time: np.ndarray, budget: int
) -> None:
    encoder = TextEncoder(llm_folder, max_tokens=500, normalise=True, token_budget=budget)
    encoded = encoder.encode(TEXTS)
    expected = one_at_a_time / np.linalg.norm(one_at_a_time, axis=1, keepdims=True)
    assert (encoded.vectors * expected).sum(1).min() >= 0.9999
    assert np.allclose(np.linalg.norm(encoded.vectors, axis=1), 1, atol=1e-5)
    assert encoded.errors == {}
    assert encoded.vectors.dtype == np.float32
    # In another order and company, the same vector for the same text.
    turned = encoder.encode(TEXTS[::-1])
    assert (turned.vectors[::-1] * expected).sum(1).min() >= 0.9999


def test_ignoring_the_mask_would_be_noticed(llm_folder: Path, one_at_a_time: np.ndarray) -> None:
    model, tokenizer = load(llm_folder)
    batch = tokenizer([TEXTS[1], TEXTS[2]], padding=True, padding_side="right", return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    lengths = batch["attention_mask"].sum(1)
    starts = torch.tensor([0, lengths[0], lengths.sum()])
    right = mean_pool(hidden[batch["attention_mask"].bool()], starts)[0].numpy()
    wrong = hidden[0].mean(0).numpy()

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    assert cosine(right, one_at_a_time[1]) >= 0.9999
    assert cosine(wrong, one_at_a_time[1]) < 0.99


def test_truncation_and_raw_vectors(llm_folder: Path, one_at_a_time: np.ndarray) -> None:
    raw = TextEncoder(llm_folder, max_tokens=500, normalise=False, token_budget=256).encode(TEXTS)
    assert np.allclose(raw.vectors, one_at_a_time, atol=2e-3)
    cut = TextEncoder(llm_folder, max_tokens=5, normalise=True, token_budget=256).encode(TEXTS)
    assert cut.n_tokens.max() == 5
    assert cut.n_tokens[1] == raw.n_tokens[1] < 5
    assert cut.truncated.tolist() == (raw.n_tokens > 5).tolist()
    assert not raw.truncated.any()


def test_texts_without_a_usable_vector_are_told(llm_folder: Path) -> None:
    encoder = TextEncoder(llm_folder, max_tokens=16, normalise=True, token_budget=64)
    assert encoder.encode(["good", "", " \t\n"]).errors == {1: "blank text", 2: "blank text"}
    # A control token in a title is text.
    assert encoder.encode(["<|endoftext|>", "<|im_end|>"]).n_tokens.min() > 1
    nothing = encoder.encode([])
    assert nothing.vectors.shape == (0, encoder.hidden_size)
    for value, reason in ((float("nan"), "the vector is not finite"), (0.0, "the vector is zero")):
        norm = next(p for n, p in encoder.model.named_parameters() if n == "norm.weight")
        kept = norm.data.clone()
        norm.data.fill_(value)
        assert encoder.encode(["good"]).errors == {0: reason}
        norm.data.copy_(kept)


def test_the_model_is_frozen_and_has_no_head(llm_folder: Path) -> None:
    model, _ = load(llm_folder)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert not any("lm_head" in name for name, _ in model.named_parameters())


def test_the_converted_gguf_gives_the_same_numbers(llm_folder: Path) -> None:
    path = resolve(SMOLLM)
    original = AutoModel.from_pretrained(path.parent, gguf_file=path.name).eval()
    model, tokenizer = load(llm_folder)
    batch = tokenizer(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(model(**batch).last_hidden_state, original(**batch).last_hidden_state)


def test_conversion_happens_once(llm_folder: Path) -> None:
    cache = llm_folder.parent
    before = {p: p.stat().st_mtime_ns for p in llm_folder.iterdir()}
    assert prepare(identify(EncoderSettings(model=SMOLLM)), cache) == llm_folder
    assert {p: p.stat().st_mtime_ns for p in llm_folder.iterdir()} == before
    assert [p.name for p in cache.iterdir()] == [llm_folder.name]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 600), st.booleans())
def test_batches_hold_every_text_once_and_keep_the_budget(lengths: list[int], budget: int, packed: bool) -> None:
    batches = list(token_budget_batches(np.asarray(lengths, np.int64), budget, packed=packed))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))

    def cost(batch: list[int]) -> int:
        longest = max(lengths[i] for i in batch)
        return sum(lengths[i] for i in batch) if packed else len(batch) * max(1, longest)

    for number, batch in enumerate(batches):
        following = batches[number + 1] if number + 1 < len(batches) else None
        assert len(batch) == 1 or cost(list(batch)) <= budget
        # And no batch is smaller than it must be.
        assert following is None or cost([*batch, following[0]]) > budget


@pytest.mark.parametrize(("name", "expected"), [("mean", [[2.0, 3.0], [7.0, 9.0]]), ("last", [[3.0, 4.0], [7.0, 9.0]])])
def test_poolings_by_hand(name: str, expected: list[list[float]]) -> None:
    hidden = torch.tensor([[1.0, 2.0], [3.0, 4.0], [7.0, 9.0]]).bfloat16()
    pooled = POOLINGS[name](hidden, torch.tensor([0, 2, 3]))
    assert pooled.dtype == torch.float32
    assert pooled.tolist() == expected
    assert POOLINGS["cls"](hidden, torch.tensor([0, 2, 3])).tolist() == [[1.0, 2.0], [7.0, 9.0]]


def test_the_key_follows_everything_that_changes_a_vector(llm_folder: Path, tmp_path: Path) -> None:
    base = EncoderSettings(model=str(llm_folder))
    key = identify(base).key
    for change in (
        {"max_tokens": 64},
        {"normalise": False},
        {"pooling": "last"},
        {"prefix": "q: "},
        {"precision": "bf16"},
    ):
        assert identify(base.model_copy(update=change)).key != key
    for change in ({"token_budget": 64}, {"chunk_rows": 3}, {"tasks": 1}):
        assert identify(base.model_copy(update=change)).key == key
    with pytest.raises(EncoderError, match=r"encoder\.revision is abc"):
        identify(base.model_copy(update={"revision": "abc"}))
    with pytest.raises(EncoderError, match=r"set encoder\.revision"):
        identify(EncoderSettings(model="some/model"))
    with pytest.raises(EncoderError, match="neither an existing file or folder"):
        identify(EncoderSettings(model="no such thing"))
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(EncoderError, match=r"has no \*\.safetensors"):
        identify(EncoderSettings(model=str(tmp_path)))
