"""From an identity to a model in memory: base model without head, frozen, no remote code, safetensors only."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from learn_spark.core.storage.files import give_usual_mode
from learn_spark.encoder.identity import EncoderError, EncoderIdentity
from learn_spark.encoder.model_files import check_model_files

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def prepare(identity: EncoderIdentity, cache: Path) -> Path:
    """A folder that :func:`load` reads directly. A GGUF file is converted to safetensors in ``cache``, once."""
    if identity.path.is_dir():
        return identity.path
    folder = cache / identity.revision
    if not (folder / "config.json").is_file():
        temporary = cache / f".{identity.revision}.{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            _convert_gguf(identity.path, temporary)
            # Another process may have converted the file meanwhile; its folder is equivalent.
            if not folder.exists():
                temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _convert_gguf(path: Path, folder: Path) -> None:
    from safetensors.torch import save_file
    from transformers import AutoModel, AutoTokenizer

    check_model_files(path)
    try:
        model = AutoModel.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    except Exception as error:
        raise EncoderError(f"{path} cannot be read as GGUF: {_one_line(error)}") from None
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    give_usual_mode(folder / "model.safetensors")
    config = model.config.to_dict()
    config.pop("quantization_config", None)
    config["architectures"] = [type(model).__name__]
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config, indent=1, default=str), encoding="utf-8")


def load(
    folder: Path, *, precision: str = "fp32", device: torch.device | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and fast tokenizer of a prepared folder: frozen, in eval mode, on ``device`` (None: the CPU).

    ``precision`` is fp32, bf16 or int8 (linear layers, on the CPU). On a GPU with bf16, FlashAttention 2 is used where
    it is installed; elsewhere PyTorch's scaled dot product attention. Raises EncoderError where the folder cannot be
    loaded.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    device = device or torch.device("cpu")
    if precision == "int8" and device.type != "cpu":
        raise EncoderError("encoder.precision int8 is for the CPU; use bf16 on a GPU")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    flash = device.type == "cuda" and precision == "bf16" and importlib.util.find_spec("flash_attn") is not None
    options = {"attn_implementation": "flash_attention_2"} if flash else {}
    check_model_files(folder)
    try:
        model, report = AutoModel.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype,
            output_loading_info=True,
            **options,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        # Files of strangers make libraries raise anything.
        raise EncoderError(f"the model in {folder} cannot be loaded: {_one_line(error)}") from None
    _check_complete(folder, report["missing_keys"])
    if not tokenizer.is_fast:
        raise EncoderError(f"the model in {folder} has no fast tokenizer (tokenizer.json)")
    model.config.use_cache = False
    model = model.eval().requires_grad_(False)
    if precision == "int8":
        model = _int8(model)
    return model.to(device), tokenizer


def _check_complete(folder: Path, missing: Collection[str]) -> None:
    """Raise EncoderError where tensors of the model are not in the files: they would be random numbers. The pooler of
    BERT is not used."""
    if random := sorted(name for name in missing if "pooler" not in name.split(".")):
        raise EncoderError(
            f"the model in {folder} lacks {len(random):,} of its tensors ({', '.join(random[:3])}): config.json is not "
            "that of these weights"
        )


def _one_line(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:400]


def _int8(model: PreTrainedModel) -> PreTrainedModel:
    import warnings

    import torch

    if not any(isinstance(module, torch.nn.Linear) for module in model.modules()):
        raise EncoderError(f"encoder.precision is int8, but {type(model).__name__} has no linear layer to quantise")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # One scale per row of a weight: a single scale loses much more quality.
        qconfig = {torch.nn.Linear: torch.ao.quantization.per_channel_dynamic_qconfig}
        quantised: PreTrainedModel = torch.ao.quantization.quantize_dynamic(model, qconfig)
    return quantised
