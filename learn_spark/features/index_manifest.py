"""What manifest.json of an index folder records, and how a change of it is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.storage.path import StoragePath

FORMAT = 2
MANIFEST_FILE = "manifest.json"


class ItemIndexError(LearnSparkError):
    """An index folder is incomplete, damaged, or of another release."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TrainedOn(_Part):
    """The vectors that the index was built on; items that came later were added to it."""

    release_id: str
    """The release of the vectors."""
    features_version: int
    """Version of ``item_features``."""
    vectors: int
    """Number of vectors."""


class IndexFacts(_Part):
    """What export_index knows of an index."""

    release_id: str
    """The release whose items the index has."""
    model_id: str
    """The model that computed the vectors."""
    kind: Literal["flat", "hnsw", "ivf", "ivf_pq"]
    """``index.kind``."""
    settings: dict[str, JsonValue]
    """Settings of the section ``index`` that decide its shape."""
    metric: Literal["inner product"] = "inner product"
    """The score of an item."""
    normalised: bool
    """Whether all vectors have length 1."""
    features_version: int
    """Version of ``item_features`` that the index has."""
    trained_on: TrainedOn
    """What the index was built on."""
    measured: dict[str, int | float]
    """recall@10, recall@100, queries per second and how they were measured (index_recall.measure)."""
    faiss: str
    """Version of FAISS."""


class IndexManifest(IndexFacts):
    """An index folder's manifest: the facts, the size, and checksums of the files and of itself."""

    format: int
    """Format of the folder: FORMAT."""
    items: int
    """Number of items."""
    dim: int
    """Length of a vector."""
    files: dict[str, str]
    """Name of each other file -> its SHA-256."""
    checksum: str
    """SHA-256 of all fields above."""


def seal(facts: IndexFacts, *, items: int, dim: int, files: Mapping[str, str]) -> IndexManifest:
    """The manifest of these facts, with its checksum."""
    fields = {"format": FORMAT, **facts.model_dump(mode="json"), "items": items, "dim": dim, "files": dict(files)}
    return IndexManifest.model_validate({**fields, "checksum": _checksum(fields)})


def write_manifest(folder: Path, manifest: IndexManifest) -> None:
    """Write manifest.json into ``folder``."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=1)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: StoragePath) -> IndexManifest:
    """The manifest in ``folder``. Raises ItemIndexError if it is missing, was changed, or has another format."""
    try:
        fields = json.loads((folder / MANIFEST_FILE).read_text())
    except (OSError, ValueError) as error:
        raise ItemIndexError(f"{folder} is not an index folder: {error}") from None
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        other = fields.get("format") if isinstance(fields, dict) else None
        raise ItemIndexError(f"{folder} has the format {other}, this version reads {FORMAT}; run export_index again")
    if fields.get("checksum") != _checksum(fields):
        raise ItemIndexError(f"{folder / MANIFEST_FILE} was changed after it was written; run export_index again")
    try:
        return IndexManifest.model_validate(fields)
    except ValidationError as error:
        raise ItemIndexError(f"{folder / MANIFEST_FILE}: {error.errors()[0]['msg']}; run export_index again") from None


def _checksum(fields: Mapping[str, object]) -> str:
    checked = {name: value for name, value in fields.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(checked, sort_keys=True).encode()).hexdigest()
