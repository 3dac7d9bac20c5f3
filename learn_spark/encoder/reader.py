"""How the model reads a batch of texts: packed without padding where possible, otherwise right-padded."""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from learn_spark.encoder.attention import BY_LENGTH
from learn_spark.encoder.linear import can_prepack, prepack

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)
_SHIFTED = ("roberta", "xlm-roberta", "camembert", "mpnet")
# Largest relative difference of hidden states between two kernels of one precision.
_TOLERANCE = {"fp32": 1e-3, "bf16": 0.1, "int8": 0.1}


class Reader:
    """Hidden states of texts without padding, however the model computes them.

    Where ``packed``, the texts of a batch are laid end to end in one row: by FlashAttention 2 on a GPU, by
    :func:`attend_by_length` on the CPU. A probe decides whether a model supports this: packed texts must have the
    hidden states that each text has by itself. ``causal``: the model's configuration says that no token attends to a
    later one, and a probe confirms it. ``longest`` is the largest number of tokens of a text.
    """

    def __init__(
        self, model: PreTrainedModel, *, pad: int, longest: int, precision: str = "fp32", packing: bool = True
    ) -> None:
        self._model, self._pad = model, pad
        self._device = model.device
        if self._device.type == "cpu" and precision != "int8" and can_prepack(model.dtype):
            prepack(model)
        self.causal = self._sees_no_later_token()
        self.packed = packing and self._packs(longest, _TOLERANCE[precision])

    def cost(self, lengths: np.ndarray) -> int:
        """Tokens that the model computes for a batch of these lengths, padding included."""
        return int(lengths.sum()) if self.packed else len(lengths) * int(lengths.max())

    def hidden_states(self, ids: np.ndarray, starts: np.ndarray) -> torch.Tensor:
        """Last hidden states [tokens, H] of the texts ``ids[starts[i] : starts[i + 1]]``, in their order."""
        lengths = np.diff(starts)
        return self._packed(ids, starts, int(lengths.max())) if self.packed else self._padded(ids, lengths)

    def _packed(self, ids: np.ndarray, starts: np.ndarray, longest: int) -> torch.Tensor:
        positions = np.arange(len(ids)) - np.repeat(starts[:-1], np.diff(starts)) + _first_position(self._model.config)
        tokens, places = (torch.from_numpy(x[None]).to(self._device) for x in (ids, positions))
        ends = torch.from_numpy(starts.astype(np.int32)).to(self._device)
        flash_arguments = {
            "cu_seq_lens_q": ends,
            "cu_seq_lens_k": ends,
            "max_length_q": longest,
            "max_length_k": longest,
        }
        states: torch.Tensor = self._model(input_ids=tokens, position_ids=places, **flash_arguments).last_hidden_state
        return states[0]

    def _padded(self, ids: np.ndarray, lengths: np.ndarray) -> torch.Tensor:
        inside = np.arange(int(lengths.max())) < lengths[:, None]
        rows = np.full(inside.shape, self._pad, np.int64)
        rows[inside] = ids
        tokens, mask = (torch.from_numpy(x).to(self._device, non_blocking=True) for x in (rows, inside))
        # Without a mask, attention uses its fastest kernels. Padding is on the right, so that no real token of a causal
        # model attends to it.
        return self._rows(tokens, None if self.causal or bool(inside.all()) else mask)[mask]

    def _rows(self, ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        attention = None if mask is None else mask.long()
        states: torch.Tensor = self._model(input_ids=ids, attention_mask=attention).last_hidden_state
        return states

    @torch.inference_mode()
    def _sees_no_later_token(self) -> bool:
        flags = [module.is_causal for module in self._model.modules() if hasattr(module, "is_causal")]
        if not flags or not all(flags):
            return False
        tokens = torch.arange(5, 15, device=self._device)[None] % int(self._model.config.vocab_size)
        short, long = self._rows(tokens[:, :6], None).float(), self._rows(tokens, None)[:, :6].float()
        return bool((short - long).norm() <= 0.05 * short.norm())

    @torch.inference_mode()
    def _packs(self, longest: int, tolerance: float) -> bool:
        implementation = self._model.config._attn_implementation
        if implementation != "flash_attention_2" and self._device.type != "cpu":
            return False
        lengths = np.minimum([9, 6, 6, 1], longest)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        ids = np.arange(5, 5 + starts[-1]) % int(self._model.config.vocab_size)
        unpacked = torch.cat([self._padded(ids[a:b], np.array([b - a])) for a, b in pairwise(starts)]).float()
        try:
            if implementation != "flash_attention_2":
                self._model.set_attn_implementation(BY_LENGTH)
            packed = self._packed(ids, starts, longest).float()
        # A model may raise any error for arguments that it does not support.
        except Exception as error:
            _log.info("%s is not packed: %s", type(self._model).__name__, error)
        else:
            if bool((packed - unpacked).norm() <= tolerance * unpacked.norm()):
                return True
        self._model.set_attn_implementation(implementation)
        return False


def readable_tokens(config: object, max_tokens: int) -> int:
    """``max_tokens``, or the number of tokens that a model with learned positions can read, if that is less."""
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if getattr(config, "rope_parameters", None) or getattr(config, "rope_theta", None) or positions is None:
        return max_tokens
    return min(max_tokens, int(positions) - _first_position(config))


def _first_position(config: object) -> int:
    """The position of a text's first token: RoBERTa's positions begin after its padding index."""
    return (getattr(config, "pad_token_id", 0) or 0) + 1 if getattr(config, "model_type", "") in _SHIFTED else 0
