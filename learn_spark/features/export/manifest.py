"""What manifest.json of an exported user tower records, and how a changed file is noticed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.storage.path import StoragePath

FORMAT = 1
KIND: Literal["learn-spark user tower"] = "learn-spark user tower"
MANIFEST_FILE = "manifest.json"
ITEMS_FILE, TEST_FILE, CARD_FILE = "items.parquet", "test_vectors.npz", "README.md"


class ExportError(LearnSparkError):
    """An exported folder is incomplete, damaged or of another format, or its input is wrong."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Checked(_Part):
    """How the graph was compared with the tower before the folder appeared."""

    users: int
    """Number of users whose vectors were compared."""
    largest_difference: float
    """The largest absolute difference of a number of a vector between the graph and the tower."""
    of_release: float | None
    """The same between the graph and the released vectors of these users; None where no release was exported."""


class ExportManifest(_Part):
    """The manifest of a folder with an exported user tower."""

    kind: Literal["learn-spark user tower"]
    """What the folder is."""
    format: int
    """Format of the folder: FORMAT."""
    model_id: str
    """The trained model."""
    release_id: str | None
    """The release whose vectors the graph gives; None for a model named by its id."""
    method: str
    """The kind of tower."""
    graph: str
    """The file of the graph."""
    window: int
    """Number of last events that the graph reads."""
    n_items: int
    """The highest item_index of the catalogue."""
    output_dim: int
    """Length of a vector."""
    normalised: bool
    """Whether vectors have length 1."""
    blended: bool
    """Whether content and popularity are blended into the vectors."""
    needs_times: bool
    """Whether the graph has the input ``times``."""
    content_dim: int
    """Width of a row of the input ``new_items``; 0: the graph has no such input."""
    encoder_key: str
    """Key of the frozen LLM."""
    template_version: str
    """Key of the prompt template."""
    space_key: str | None
    """Embedding space of the content; None for a tower without content."""
    trained_as_of: str | None
    """``histories.as_of`` of the training."""
    versions: dict[str, int]
    """Table -> the version that items and test vectors are from."""
    written_by: dict[str, str | int]
    """Versions of what wrote the graph."""
    checked: Checked
    """The comparison with the tower."""
    files: dict[str, str]
    """Name of each other file -> its SHA-256."""


def sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_export(folder: StoragePath) -> bool:
    """Whether ``folder`` has the manifest of an export, of any format."""
    try:
        fields = json.loads((folder / MANIFEST_FILE).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(fields, dict) and fields.get("kind") == KIND


def read_manifest(folder: Path) -> ExportManifest:
    """The manifest in ``folder``. Raises ExportError where it is missing, damaged or of another format, and where a
    file is missing or differs from its hash.
    """
    try:
        fields = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"{folder} is not an exported user tower: {error}") from None
    if not isinstance(fields, dict) or (fields.get("kind"), fields.get("format")) != (KIND, FORMAT):
        raise ExportError(f"{folder} is not an exported user tower of format {FORMAT}; run learn-spark export again")
    try:
        manifest = ExportManifest.model_validate(fields)
    except ValidationError as error:
        raise ExportError(f"{folder / MANIFEST_FILE}: {error.errors()[0]['msg']}; export again") from None
    for name, expected in manifest.files.items():
        if not (folder / name).is_file():
            raise ExportError(f"{folder} lacks {name}; run learn-spark export again")
        if sha256(folder / name) != expected:
            raise ExportError(f"{folder / name} differs from its hash in the manifest; run learn-spark export again")
    return manifest
