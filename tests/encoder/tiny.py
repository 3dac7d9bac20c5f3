"""Tiny random models of many shapes, with SmolLM2's tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, BertConfig, GPT2Config, LlamaConfig, PreTrainedModel, Qwen2Config, Qwen3Config

SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
VOCABULARY = 49_152
CONFIGS = {
    "qwen2": Qwen2Config(vocab_size=VOCABULARY, num_key_value_heads=2, **SMALL),
    "qwen3": Qwen3Config(vocab_size=VOCABULARY, num_key_value_heads=2, head_dim=8, **SMALL),
    # Baichuan-7B: LLaMA's blocks, one key head a query head, an untied vocabulary.
    "baichuan-like": LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=4096, **SMALL),
    "gpt2": GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "bert": BertConfig(vocab_size=VOCABULARY, max_position_embeddings=64, **SMALL),
}


def tiny_model(shape: str, folder: Path, tokenizer: Path) -> Path:
    """Write a random model of the shape into ``folder``; attention is made strong enough to matter."""
    torch.manual_seed(5)
    model: PreTrainedModel = AutoModel.from_config(CONFIGS[shape])
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embed" not in name and "wte" not in name:
                weight.mul_(12)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder)
    return folder
