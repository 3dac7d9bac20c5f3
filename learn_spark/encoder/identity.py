"""The identity of the frozen LLM: its files, their revision, and the key of its embeddings."""

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
MODEL_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt"]


class EncoderError(LearnSparkError):
    """A model that is missing, cannot be loaded, or gives unusable vectors."""


# Names in the key of precisions whose computation has changed since they were introduced.
_WAYS = {"int8": "int8, one scale an output channel"}


@dataclass(frozen=True)
class EncoderIdentity:
    """A frozen LLM and its reading settings. ``path`` is a folder with safetensors, or a GGUF file."""

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

    The revision of local files is a hash of the weights, that of a hub name its commit. Raises EncoderError where the
    model is missing, is neither safetensors nor GGUF, or is not the revision that the settings pin.
    """
    local = settings.model.startswith("package:") or Path(settings.model).expanduser().exists()
    if local:
        path = resolve(settings.model)
        revision = _content_hash(path, *_weight_stats(path))
        if settings.revision and settings.revision != revision:
            raise EncoderError(
                f"encoder.model {settings.model} has the revision {revision}, but encoder.revision is "
                f"{settings.revision}; set the revision of the local files or remove it"
            )
    elif _HUB_NAME.match(settings.model):
        path = _from_hub(settings.model, settings.revision)
        revision = path.name
    else:
        raise EncoderError(f"encoder.model {settings.model!r} is neither an existing file or folder nor a hub name")
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


def check_model(settings: EncoderSettings) -> None:
    """Raise EncoderError where the model is missing or not the pinned revision, or a hub name is not pinned.

    Nothing is downloaded, and local weights are hashed only where ``encoder.revision`` pins them.
    """
    if settings.model.startswith("package:") or Path(settings.model).expanduser().exists():
        weight_files(resolve(settings.model))
        if settings.revision:
            identify(settings)
    elif not _HUB_NAME.match(settings.model):
        raise EncoderError(f"encoder.model {settings.model!r} is neither an existing file or folder nor a hub name")
    elif settings.revision is None:
        raise EncoderError(_unpinned(settings.model))


def _unpinned(name: str) -> str:
    return f"encoder.model {name} is a hub name: set encoder.revision to a commit, so that a re-run uses the same model"


def weight_files(path: Path) -> list[Path]:
    """The files with the weights: the GGUF file, or a folder's safetensors. Raises EncoderError for other formats."""
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    if not files or (path.is_file() and path.suffix != ".gguf"):
        raise EncoderError(f"{path} has no *.safetensors and is not a .gguf file; no other format is loaded")
    return files


def _weight_stats(path: Path) -> tuple[tuple[str, int, int], ...]:
    return tuple((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in weight_files(path))


@lru_cache(maxsize=16)
def _content_hash(path: Path, *_stats: tuple[str, int, int]) -> str:
    digest = hashlib.sha256()
    configs = [path / name for name in ("config.json", "tokenizer.json")] if path.is_dir() else []
    for file in [*weight_files(path), *(f for f in configs if f.is_file())]:
        with file.open("rb") as stream:
            digest.update(file.name.encode() + b"\0" + hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    if revision is None:
        raise EncoderError(_unpinned(name))
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=MODEL_FILES))
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EncoderError(f"encoder.model {name} @ {revision} cannot be downloaded from the hub: {first}") from None
