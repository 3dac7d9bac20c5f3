"""Attacks by files of models: LLMs from anywhere, and models in a workspace."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from learn_spark.core.settings import load_settings
from learn_spark.core.storage.path import storage_path
from learn_spark.core.tables.workspace import Workspace
from learn_spark.encoder.identity import EncoderError
from learn_spark.encoder.loading import load
from learn_spark.encoder.model_files import check_model_files
from learn_spark.model.manifest import WEIGHTS, ModelError
from learn_spark.model.store import load_model, save_model
from tests.model.facts import training_facts
from tests.model.training.planted import make_tower

CODE = "import pathlib; pathlib.Path({marker!r}).touch()\n"


class Planted:
    """Its pickle executes code."""

    def __init__(self, marker: Path) -> None:
        self.code = CODE.format(marker=str(marker))

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.code,)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLM that loads."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import AutoModel, LlamaConfig

    folder = tmp_path_factory.mktemp("llm")
    config = LlamaConfig(
        vocab_size=8, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, pad_token_id=0
    )
    AutoModel.from_config(config).save_pretrained(folder)
    Tokenizer(WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    load(folder)
    return folder


def change(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def with_code(folder: Path) -> None:
    (folder / "planted.py").write_text(CODE.format(marker=str(folder / "executed")) + "class Planted: pass\n")
    remote = dict.fromkeys(("AutoConfig", "AutoModel"), "planted.Planted")
    change(folder / "config.json", model_type="planted", auto_map=remote)


def with_code_beside_a_known_type(folder: Path) -> None:
    (folder / "planted.py").write_text(CODE.format(marker=str(folder / "executed")) + "class Planted: pass\n")
    change(folder / "config.json", auto_map={"AutoModel": "planted.Planted"}, hidden_size="wide")


def with_a_tokenizer_of_code(folder: Path) -> None:
    (folder / "planted.py").write_text(CODE.format(marker=str(folder / "executed")))
    change(folder / "tokenizer_config.json", tokenizer_class="P", auto_map={"AutoTokenizer": [None, "planted.P"]})


def with_a_pickle(folder: Path) -> None:
    torch.save(Planted(folder / "executed"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def with_weights_elsewhere(folder: Path) -> None:
    listed = {"embed_tokens.weight": "../model.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))


def header(changed: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def attack(folder: Path) -> None:
        file = folder / "model.safetensors"
        content = file.read_bytes()
        size = struct.unpack("<Q", content[:8])[0]
        described = json.loads(content[8 : 8 + size])
        changed(described)
        text = json.dumps(described).encode()
        file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])

    return attack


def weights(content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / "model.safetensors").write_bytes(content) and None


def config(**changes: object) -> Callable[[Path], None]:
    return lambda folder: change(folder / "config.json", **changes)


NORM = "norm.weight"
DEEP = '{"a":' * 100_000


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (with_code, "contains custom code"),
        (with_code_beside_a_known_type, "cannot be loaded"),
        (with_a_tokenizer_of_code, "contains custom code"),
        (with_a_pickle, "no other format is loaded"),
        (with_weights_elsewhere, "no file of this folder"),
        (weights(b""), "is damaged"),
        (weights(struct.pack("<Q", 1 << 63)), "is damaged"),
        (weights(struct.pack("<Q", 99_000_000)), "is damaged"),
        (header(lambda h: h[NORM].update(shape=[1 << 40])), "is damaged"),
        (header(lambda h: h[NORM].update(data_offsets=[0, 1 << 50])), "is damaged"),
        (header(lambda h: h[NORM].update(dtype="F999")), "is damaged"),
        (config(num_hidden_layers=10**9), "but the weights have"),
        (config(hidden_size=10**6), "but the weights have"),
        (config(vocab_size=10**12), "but the weights have"),
        (config(head_dim=10**9), "but the weights have"),
        (config(hidden_size=4), "cannot be loaded|lacks"),
        (config(num_attention_heads=0), "cannot be loaded"),
        (config(num_hidden_layers=3), "lacks"),
        (config(model_type="bert"), "lacks|cannot be loaded"),
        (config(attn_implementation="someone/kernels"), "code of a hub"),
        (lambda folder: (folder / "config.json").write_text(DEEP) and None, "is not valid JSON"),
        (lambda folder: (folder / "tokenizer.json").write_text(DEEP) and None, "cannot be loaded"),
    ],
)
def test_an_llm_of_strangers_runs_no_code_and_fills_no_memory(
    attack: Callable[[Path], None], words: str, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "llm"
    shutil.copytree(whole, folder)
    attack(folder)
    with pytest.raises(EncoderError, match=words) as refused:
        load(folder)
    assert "\n" not in str(refused.value)
    assert not (folder / "executed").exists()


def test_the_planted_pickle_would_execute(tmp_path: Path) -> None:
    with_a_pickle_beside = tmp_path / "model.safetensors"
    with_a_pickle_beside.touch()
    with_a_pickle(tmp_path)
    torch.load(tmp_path / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "executed").exists()


def test_no_code_of_the_package_unpickles_files() -> None:
    """torch.load, pickle and joblib read no file; the one pickle is of sums that Spark's own workers return."""
    package = Path(__file__).parents[2] / "learn_spark"
    words = ("torch.load(", "joblib", "pickle.load", "allow_pickle=True", "trust_remote_code=True", "yaml.load(")
    found = {
        (file.relative_to(package).as_posix(), word)
        for file in package.rglob("*.py")
        for word in words
        if word in file.read_text(encoding="utf-8")
    }
    assert found == {("evaluation/workers.py", "pickle.load"), ("core/settings/yaml_text.py", "yaml.load(")}


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(tensors: int, keys: int, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, keys) + rest


def tensor(*sizes: int, start: int = 0) -> bytes:
    return text("t") + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, 0, start)


LIST = text("list") + struct.pack("<I", 9)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cut off"),
        (b"GGUF", "cut off"),
        (b"no model at all", "does not begin with GGUF"),
        (gguf(0, 1 << 60), "keys, at most"),
        (gguf(1 << 60, 0), "tensors, at most"),
        (gguf(0, 1, struct.pack("<Q", 1 << 62)), "a length in it is wrong"),
        (gguf(0, 1, LIST + struct.pack("<IQ", 4, 1 << 60)), "lists have"),
        (gguf(0, 1, LIST + struct.pack("<IQ", 8, 1 << 20)), "cut off"),
        (gguf(0, 1, LIST + struct.pack("<IQ", 9, 1) * 1_000), "unknown type 9"),
        (gguf(1, 0, text("t") + struct.pack("<I", 1 << 31)), "dimensions, at most 4"),
        (gguf(1, 0, tensor(1 << 40, 1 << 40)), "numbers, the file"),
        (gguf(1, 0, tensor(2, start=1 << 60)), "begins at byte"),
        (gguf(0, 1, text("llama.block_count") + struct.pack("<II", 4, 1 << 31)), "but the file has 0 tensors"),
    ],
)
def test_a_gguf_file_that_lies_is_refused_before_it_is_converted(content: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    with pytest.raises(EncoderError, match=words):
        check_model_files(file)


def test_a_sparse_gguf_of_gigabytes_is_refused_by_its_header(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(gguf(0, 1, LIST + struct.pack("<IQ", 8, 1 << 28)))
    os.truncate(file, 4 << 30)
    with pytest.raises(EncoderError, match="lists have 268,435,456 values"):
        check_model_files(file)


def test_the_gguf_file_of_the_tests_passes() -> None:
    from learn_spark.data.sources.location import resolve
    from tests.conftest import SMOLLM

    check_model_files(resolve(SMOLLM))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    workspace = Workspace.open(str(tmp_path / "workspace"))
    name = save_model(workspace, make_tower("sasrec"), training_facts(), [], load_settings("movielens-sasrec"))
    return workspace.root / "models" / name


def reshaped(folder: Path, **shape: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(folder / "manifest.json", shape={**manifest["shape"], **shape})


def resealed(folder: Path, content: bytes) -> None:
    """Other weights, whose hash the manifest has: an attacker writes both."""
    (folder / WEIGHTS).write_bytes(content)
    change(folder / "manifest.json", files={WEIGHTS: hashlib.sha256(content).hexdigest()})


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (lambda folder: reshaped(folder, layers=10**9), "layers is 1,000,000,000"),
        (lambda folder: reshaped(folder, width=10**9), "width is 1,000,000,000"),
        (lambda folder: reshaped(folder, n_items=10**12), "n_items is"),
        (lambda folder: reshaped(folder, heads=0), "does not fit the weights"),
        (lambda folder: reshaped(folder, kind="os.system"), "unknown tower kind"),
        (lambda folder: reshaped(folder, hook="os.system"), "wrong arguments"),
        (lambda folder: resealed(folder, b""), "not a whole safetensors file"),
        (lambda folder: resealed(folder, struct.pack("<Q", 1 << 60)), "not a whole safetensors file"),
        (lambda folder: resealed(folder, save({"x": torch.zeros(3)})), "but the weights are|the tensor"),
        (lambda folder: change(folder / "manifest.json", files={WEIGHTS: "0"}), "its hash differs"),
        (lambda folder: (folder / "manifest.json").write_text(DEEP) and None, "is not a complete model folder"),
    ],
)
def test_a_model_folder_that_lies_is_refused(attack: Callable[[Path], None], words: str, model: Path) -> None:
    load_model(storage_path(str(model)))
    attack(model)
    with pytest.raises(ModelError, match=words):
        load_model(storage_path(str(model)))
