"""The encoding engine without Spark: texts in, one pooled vector per text out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from learn_spark.core.causes import first_line
from learn_spark.core.settings.encoder import EncoderSettings
from learn_spark.encoder.batching import token_budget_batches
from learn_spark.encoder.identity import EncoderError
from learn_spark.encoder.loading import load
from learn_spark.encoder.pooling import POOLINGS
from learn_spark.encoder.reader import Reader, readable_tokens

_log = logging.getLogger(__name__)
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "bad allocation", "std::bad_alloc")
MOST_SPECIAL_TOKENS = 4  # that a tokenizer puts around a text


@dataclass(frozen=True)
class Tokenised:
    """Texts as token ids. Text i has ``ids[starts[i] : starts[i + 1]]``; ``truncated`` and ``blank`` are [n] bool."""

    ids: np.ndarray
    starts: np.ndarray
    truncated: np.ndarray
    blank: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each text [n]."""
        return np.diff(self.starts)


@dataclass(frozen=True)
class Encoded:
    """The vectors of n texts.

    ``vectors`` [n, hidden] float32; ``n_tokens`` [n] int32; ``truncated`` [n] bool, True where a text had more tokens
    than were read; ``errors``: position -> reason why its vector is unusable; ``padded_tokens``: computed tokens with
    padding.
    """

    vectors: np.ndarray
    n_tokens: np.ndarray
    truncated: np.ndarray
    errors: dict[int, str]
    padded_tokens: int = 0


class TextEncoder:
    """A frozen LLM that encodes lists of texts.

    Texts are tokenised in bulk, sorted by length and batched by token budget. Where the model supports it, a batch is
    packed: its texts are laid end to end, without padding (on the CPU, and on a GPU with FlashAttention 2). Otherwise
    it is right-padded. A vector depends on its batch only in the last bits (int8 scales activations by batch, so there
    it depends a little). ``pooling`` is mean, last or cls; ``prefix`` is put before every text (an instruction);
    ``precision`` is fp32, bf16 or int8 (CPU: linear layers, quantised at load).

    Raises ValueError for sizes below 1, and EncoderError where the model cannot be loaded or does not support the
    settings.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_tokens: int = 500,
        normalise: bool = True,
        token_budget: int = 4096,
        pooling: str = "mean",
        prefix: str = "",
        precision: str = "fp32",
        device: str = "cpu",
        packing: bool = True,
    ) -> None:
        if token_budget < 1 or max_tokens < 1:
            raise ValueError(f"token_budget {token_budget} and max_tokens {max_tokens} must be at least 1")
        self.device = torch.device(device)
        self.model, self.tokenizer = load(folder, precision=precision, device=self.device)
        self.max_tokens = readable_tokens(self.model.config, max_tokens)
        self.normalise, self.token_budget, self.prefix = normalise, token_budget, prefix
        self.hidden_size = int(self.model.config.hidden_size)
        self._pool = POOLINGS[pooling]
        self._backend = self.tokenizer.backend_tokenizer
        self._backend.no_padding()
        self._backend.enable_truncation(self.max_tokens)
        # "[SEP]" in a title is text. Only a prefix may have control tokens, and then texts may, too.
        special = [token.content for token in self._backend.get_added_tokens_decoder().values() if token.special]
        self._backend.encode_special_tokens = not any(token in prefix for token in special)
        pad = self.tokenizer.pad_token_id or 0
        self.reader = Reader(self.model, pad=pad, longest=self.max_tokens, precision=precision, packing=packing)
        if pooling == "cls" and self.reader.causal:
            raise EncoderError(
                "encoder.pooling is cls, but the first token of a causal model attends only to itself; use mean or last"
            )

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Encode ``texts``. Blank texts, and texts whose vector is zero or not finite, are in ``errors``."""
        return self.encode_tokens(self.tokenise(texts))

    def tokenise(self, texts: Sequence[str]) -> Tokenised:
        """Token ids of all texts with prefix and special tokens, truncated at ``max_tokens``."""
        full = [self.prefix + text for text in texts] if self.prefix else list(texts)
        encodings = self._backend.encode_batch_fast(full, add_special_tokens=True)
        rows = [encoding.ids for encoding in encodings]
        # Of some texts the tokenizer leaves nothing but its own tokens, so that all have one vector.
        for i, encoding in enumerate(encodings):
            few = len(encoding.ids) <= MOST_SPECIAL_TOKENS and not encoding.overflowing
            if few and all(encoding.special_tokens_mask):
                rows[i] = []
        starts = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=starts[1:])
        ids = np.fromiter((token for row in rows for token in row), np.int64, count=int(starts[-1]))
        truncated = np.fromiter((bool(encoding.overflowing) for encoding in encodings), bool, count=len(rows))
        blank = np.fromiter((not text.strip() for text in texts), bool, count=len(rows))
        return Tokenised(ids, starts, truncated, blank)

    def encode_tokens(self, tokens: Tokenised) -> Encoded:
        """The vectors of tokenised texts. Raises EncoderError where the model fails on all of them."""
        lengths = tokens.lengths
        vectors = np.zeros((len(lengths), self.hidden_size), dtype=np.float32)
        errors = {int(i): "blank text" if tokens.blank[i] else "no tokens" for i in np.flatnonzero(tokens.blank)}
        errors |= {int(i): "no tokens" for i in np.flatnonzero(~tokens.blank & (lengths == 0))}
        usable = np.flatnonzero(~tokens.blank & (lengths > 0))
        failed: dict[int, str] = {}
        alone: set[int] = set()  # without memory though alone in their batch; they get a second trial at the end
        padded = 0
        batches = token_budget_batches(lengths[usable], self.token_budget, packed=self.reader.packed)
        waiting = [usable[batch] for batch in batches][::-1]
        while waiting:
            batch = waiting.pop()
            try:
                vectors[batch] = self._forward(tokens, batch)
                padded += self.reader.cost(lengths[batch])
            except Exception as error:
                # The frames of a traceback hold the tensors of the batch that failed.
                failure = error.with_traceback(None)
            else:
                continue
            no_memory = is_out_of_memory(failure)
            if len(batch) > 1:
                if no_memory:
                    self._shrink_budget(self.reader.cost(lengths[batch]))
                waiting += [batch[len(batch) // 2 :], batch[: len(batch) // 2]]
            elif no_memory and batch[0] not in alone:
                alone.add(int(batch[0]))
                waiting.insert(0, batch)
            else:
                failed[int(batch[0])] = "out of memory" if no_memory else f"the model failed: {_brief(failure)}"
        if failed and len(failed) == len(usable):
            raise EncoderError(f"the model fails on each of {len(failed)} texts: {_brief(failure)}") from failure
        norms = np.linalg.norm(vectors, axis=1)
        good = np.isfinite(norms) & (norms > 0)
        for i in np.flatnonzero(~good):
            errors.setdefault(
                int(i), failed.get(int(i)) or ("the vector is zero" if norms[i] == 0 else "the vector is not finite")
            )
        if self.normalise:
            vectors[good] /= norms[good, None]
        return Encoded(vectors, lengths.astype(np.int32), tokens.truncated, errors, padded)

    @torch.inference_mode()
    def _forward(self, tokens: Tokenised, batch: np.ndarray) -> np.ndarray:
        lengths = tokens.lengths[batch]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        ids = tokens.ids[np.repeat(tokens.starts[batch] - starts[:-1], lengths) + np.arange(starts[-1])]
        hidden = self.reader.hidden_states(ids, starts)
        return self._pool(hidden, torch.from_numpy(starts).to(self.device)).cpu().numpy()

    def _shrink_budget(self, cells: int) -> None:
        """Halve the token budget, or the cost of the batch that did not fit if that is less."""
        self.token_budget = max(1, min(self.token_budget, cells) // 2)
        _log.warning("out of memory in a batch of %d tokens; the token budget is now %d", cells, self.token_budget)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def open_encoder(folder: Path, settings: EncoderSettings, device: str) -> TextEncoder:
    """The engine over a prepared folder (loading.prepare) by the settings, on one of PyTorch's devices."""
    return TextEncoder(
        folder,
        max_tokens=settings.max_tokens,
        normalise=settings.normalise,
        token_budget=settings.token_budget,
        pooling=settings.pooling,
        prefix=settings.prefix,
        precision=settings.precision,
        device=device,
    )


def encode_windows(encoder: TextEncoder, windows: Iterator[Sequence[str]]) -> Iterator[Encoded]:
    """Encode window after window; the next one is tokenised while the model computes."""
    with ThreadPoolExecutor(1) as ahead:
        waiting = None
        for window in windows:
            upcoming = ahead.submit(encoder.tokenise, window)
            if waiting is not None:
                yield encoder.encode_tokens(waiting.result())
            waiting = upcoming
        if waiting is not None:
            yield encoder.encode_tokens(waiting.result())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error reports that memory of the GPU or the machine ran out."""
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(sign in text for sign in _OUT_OF_MEMORY)


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"[:300]
