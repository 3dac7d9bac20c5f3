"""Which frozen LLM this is, exactly: where its files lie, the revision they are, and the key of its embeddings."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.encoder import EncoderSettings
from learn_spark.data.sources.location import resolve

_HUB_NAME = re.compile(r"^[\w.-]+/[\w.-]+$")
_HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt"]


class EncoderError(LearnSparkError):
    """A model that cannot be found, loaded, or that gives unusable vectors."""


# A precision that is computed another way than it once was has another name in the key.
_WAYS = {"int8": "int8, one scale an output channel"}


@dataclass(frozen=True)
class EncoderIdentity:
    """A frozen LLM and how it is read. ``path`` is a folder with safetensors, or a GGUF file."""

    model: str
    revision: str
    path: Path
    pooling: str
    max_tokens: int
    normalise: bool
    prefix: str = ""
    precision: str = "fp32"

    @property
    def key(self) -> str:
        """encoder_key of text_embeddings: SHA-256 over everything that changes a vector."""
        parts = {
            "model": self.model,
            "revision": self.revision,
            "pooling": self.pooling,
            "max_tokens": self.max_tokens,
            "normalise": self.normalise,
            "prefix": self.prefix,
            "precision": _WAYS.get(self.precision, self.precision),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def identify(settings: EncoderSettings) -> EncoderIdentity:
    """The identity of the configured model: ``package:NAME/file``, a local folder or GGUF file, or a hub name.

    Of local files the revision is a hash of the weights; of a hub name it is the commit. Raises EncoderError where
    the model is missing, is not safetensors or GGUF, or is not the revision that the settings pin.
    """
    local = settings.model.startswith("package:") or Path(settings.model).expanduser().exists()
    if local:
        path = resolve(settings.model)
        revision = _content_hash(path, *_weight_stats(path))
        if settings.revision and settings.revision != revision:
            raise EncoderError(
                f"encoder.model {settings.model} has the revision {revision}, but encoder.revision pins "
                f"{settings.revision}"
            )
    elif _HUB_NAME.match(settings.model):
        path = _from_hub(settings.model, settings.revision)
        revision = path.name
    else:
        raise EncoderError(f"encoder.model {settings.model!r} is neither a file or folder here nor a hub name")
    return EncoderIdentity(
        settings.model,
        revision,
        path,
        settings.pooling,
        settings.max_tokens,
        settings.normalise,
        settings.prefix,
        settings.precision,
    )


def weight_files(path: Path) -> list[Path]:
    """The files that hold the weights: the GGUF file itself, or a folder's safetensors."""
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    if not files or (path.is_file() and path.suffix != ".gguf"):
        raise EncoderError(f"{path} holds neither *.safetensors nor is it a .gguf file; other formats are not loaded")
    return files


def _weight_stats(path: Path) -> tuple[tuple[str, int, int], ...]:
    return tuple((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in weight_files(path))


@lru_cache(maxsize=16)
def _content_hash(path: Path, *_stats: tuple[str, int, int]) -> str:
    digest = hashlib.sha256()
    extra = [path / n for n in ("config.json", "tokenizer.json")] if path.is_dir() else []
    for file in [*weight_files(path), *(f for f in extra if f.is_file())]:
        with file.open("rb") as opened:
            digest.update(file.name.encode() + b"\0" + hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    if revision is None:
        raise EncoderError(
            f"encoder.model {name} is a hub name: pin encoder.revision to a commit, so that a re-run meets the same "
            "model"
        )
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_HUB_FILES))
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EncoderError(f"encoder.model {name} @ {revision} could not be had from the hub: {first}") from None
