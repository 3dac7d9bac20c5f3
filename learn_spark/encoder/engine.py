"""The encoding engine: texts in, one pooled vector a text out. Knows nothing of Spark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from learn_spark.encoder.loading import load


@dataclass(frozen=True)
class Encoded:
    """``vectors`` [n, hidden] float32; ``n_tokens`` [n] int32; ``errors``: position -> why its vector is unusable."""

    vectors: np.ndarray
    n_tokens: np.ndarray
    errors: dict[int, str]


def token_budget_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Positions in batches, longest texts first, so that rows x padded length <= ``budget`` (one row always fits)."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        rows = max(1, budget // max(1, lengths[order[start]]))
        yield order[start : start + rows]
        start += rows


def mean_pool(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of the hidden states [B, L, H] over real tokens (mask [B, L]), in fp32 (LEARN, content embedding)."""
    weights = mask.unsqueeze(-1).float()  # [B, L, 1]
    return (hidden.float() * weights).sum(1) / weights.sum(1).clamp_min(1.0)


class TextEncoder:
    """A frozen LLM that encodes lists of texts.

    Texts are tokenised in bulk, sorted by length and cut into batches by token budget, right-padded. A vector does
    not depend on the batch it travelled in, but for the last bits.
    """

    def __init__(self, folder: Path, *, max_tokens: int, normalise: bool, token_budget: int) -> None:
        if token_budget < 1 or max_tokens < 1:
            raise ValueError(f"token_budget {token_budget} and max_tokens {max_tokens} must be at least 1")
        self.model, self.tokenizer = load(folder)
        self.max_tokens, self.normalise, self.token_budget = max_tokens, normalise, token_budget
        self.hidden_size = int(self.model.config.hidden_size)
        self._pad = self.tokenizer.pad_token_id or 0

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Encode ``texts``. A text without tokens, or whose vector is not finite or is zero, is in ``errors``."""
        vectors = np.zeros((len(texts), self.hidden_size), dtype=np.float32)
        if not texts:
            return Encoded(vectors, np.zeros(0, dtype=np.int32), {})
        ids = self.tokenizer(
            list(texts), truncation=True, max_length=self.max_tokens, padding=False, return_attention_mask=False
        )["input_ids"]
        lengths = [len(row) for row in ids]
        for batch in token_budget_batches(lengths, self.token_budget):
            if lengths[batch[0]]:
                vectors[batch] = self._forward([ids[i] for i in batch])
        norms = np.linalg.norm(vectors, axis=1)
        errors = {
            int(i): "no tokens"
            if lengths[i] == 0
            else "the vector is zero"
            if norms[i] == 0
            else "the vector is not finite"
            for i in np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
        }
        if self.normalise:
            usable = np.isfinite(norms) & (norms > 0)
            vectors[usable] /= norms[usable, None]
        return Encoded(vectors, np.asarray(lengths, dtype=np.int32), errors)

    @torch.inference_mode()
    def _forward(self, rows: list[list[int]]) -> np.ndarray:
        longest = max(len(row) for row in rows)
        tokens = torch.full((len(rows), longest), self._pad, dtype=torch.long)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        for i, row in enumerate(rows):
            tokens[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        hidden = self.model(input_ids=tokens, attention_mask=mask).last_hidden_state
        return mean_pool(hidden, mask).numpy()
