"""What the files of an LLM claim about themselves, checked before a library builds a model from them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

from learn_spark.encoder.gguf_header import GgufError, read_gguf_header
from learn_spark.encoder.identity import EncoderError, weight_files

MOST_CONFIG_BYTES = 16 << 20
MOST_TIMES = 16  # that a configuration may seem to have the numbers of its weights: ALBERT's layers share theirs
_LAYERS = re.compile(
    r"^(?:num_hidden_layers|num_layers|n_layers?|num_(?:en|de)coder_layers|(?:en|de)coder_layers)$|block_count$"
)
_WIDTH = re.compile(r"^(?:hidden_size|n_embd|d_model|dim)$")
_SIZES = re.compile(r"(?<!vocab_)size$|dim$|heads?$|n_embd$|n_inner$|d_model$|d_ff$|experts$")
_VOCABULARY = re.compile(r"vocab_size$")


def check_model_files(path: Path) -> None:
    """Raise EncoderError where the files of a model folder or a GGUF file contradict themselves or lead elsewhere.

    Checked are: the headers of the weights; that the configuration has no more layers than there are tensors, and no
    sizes that the weights cannot have (what a file lacks is allocated all the same); that no kernels are to be fetched;
    that a list of weight files names files of this folder.
    """
    if path.is_file():
        _check_gguf(path)
        return
    sizes = [size for file in weight_files(path) for size in _tensor_sizes(file)]
    for name in ("model.safetensors.index.json", "config.json"):
        if (path / name).is_file():
            content = _json(path / name)
            if name == "config.json":
                _check_config(path, content, sizes)
            else:
                _check_list(path, content)


def _tensor_sizes(file: Path) -> list[int]:
    """The number of numbers of each tensor, by the header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as opened:
            return [prod(opened.get_slice(name).get_shape()) for name in opened.keys()]  # noqa: SIM118  no dict
    except (SafetensorError, OSError) as error:
        raise EncoderError(f"{file} is damaged: {' '.join(str(error).split())}; fetch the model again") from None


def _check_config(folder: Path, config: dict[str, Any], sizes: Sequence[int]) -> None:
    where, numbers = folder / "config.json", sum(sizes)
    for section in _sections(config):
        layers, width = (max([1, *_integers(section, pattern)]) for pattern in (_LAYERS, _WIDTH))
        if layers > len(sizes):
            raise EncoderError(f"{where} has {layers:,} layers, but the weights have {len(sizes):,} tensors")
        inner, rows = (max([1, *_integers(section, pattern)]) for pattern in (_SIZES, _VOCABULARY))
        if max(layers * inner, rows) * width > MOST_TIMES * numbers:
            raise EncoderError(
                f"{where} describes a model of {layers:,} layers x {width:,} x {inner:,} and {rows:,} tokens, but the "
                f"weights have {numbers:,} numbers"
            )
        for key, value in section.items():
            if key.endswith("attn_implementation") and isinstance(value, str) and "/" in value:
                raise EncoderError(f"{where}: {key} names code of a hub ({value[:100]!r}); remove it")


def _check_list(folder: Path, content: dict[str, Any]) -> None:
    listed = content.get("weight_map")
    if not isinstance(listed, dict):
        raise EncoderError(f"{folder / 'model.safetensors.index.json'} has no weight_map; fetch the model again")
    for name in sorted({str(file) for file in listed.values()}):
        if "/" in name or "\\" in name or not (folder / name).is_file():
            raise EncoderError(f"{folder}: its list of weights names {name[:200]!r}, which is no file of this folder")


def _sections(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield config
    for value in config.values():
        if isinstance(value, dict):
            yield from _sections(value)


def _integers(section: dict[str, Any], pattern: re.Pattern[str]) -> list[int]:
    return [value for key, value in section.items() if pattern.search(key) and isinstance(value, int)]


def _json(file: Path) -> dict[str, Any]:
    if (size := file.stat().st_size) > MOST_CONFIG_BYTES:
        raise EncoderError(f"{file} has {size:,} bytes; at most {MOST_CONFIG_BYTES:,} are read")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise EncoderError(f"{file} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise EncoderError(f"{file} is not a JSON object")
    return content


def _check_gguf(path: Path) -> None:
    try:
        header = read_gguf_header(path)
    except GgufError as error:
        raise EncoderError(f"{path} cannot be read as GGUF: {error}") from None
    for key, value in header.numbers.items():
        if _LAYERS.search(key) and value > header.tensors:
            raise EncoderError(f"{path}: {key} is {value:,}, but the file has {header.tensors:,} tensors")
