"""The frozen embeddings as a memory-mapped matrix by item_index, built once and shared by all processes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from learn_spark.core.console import Reporter
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.storage.locks import wait_for_lock
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.model.feed.matrix_rows import ItemTexts, embeddings_by_text

FILE = "embeddings.npy"


class VectorSpace(Protocol):
    """A transformation of embeddings before they are stored (learn_spark/encoder/embedding_space.py)."""

    def key(self, encoder_key: str) -> str:
        """A hash that identifies the space and the data it was fitted on."""

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """Transform vectors [n, hidden] to [n, dims]."""


def item_matrix(path: Path) -> np.ndarray:
    """The matrix [highest index + 1, dims] at ``path``, memory-mapped; row 0 (padding) is zero."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def item_matrix_path(
    item_index: Snapshot,
    item_text: Snapshot,
    embeddings: Snapshot,
    *,
    template_version: str,
    encoder_key: str,
    cache: Path,
    dtype: Literal["float16", "float32"] = "float32",
    space: VectorSpace | None = None,
    console: Reporter | None = None,
) -> Path:
    """The file of the item matrix of these snapshots; it is built if it does not exist.

    There is one matrix per encoder, template, dtype, space, and files of item_index and item_text. The version of
    text_embeddings is not part of its key: embeddings are addressed by content, so a text's embedding never changes.
    Vectors are read a few thousand at a time and written straight to the file; only the items' ids and text keys are in
    memory. Of several concurrent builders one builds and the others wait.

    Raises MissingEmbeddingsError with the number of items without a text or an embedding and some of their ids, and
    LearnSparkError for values that are not finite or outside the range of ``dtype``.
    """
    description = {
        "encoder_key": encoder_key,
        "template_version": template_version,
        "dtype": dtype,
        "space_key": None if space is None else space.key(encoder_key),
        **{
            name: {
                "path": snapshot.path,
                "version": snapshot.version,
                "files": hashlib.sha256("\n".join(snapshot.files).encode()).hexdigest(),
            }
            for name, snapshot in (("item_index", item_index), ("item_text", item_text))
        },
    }
    key = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:32]
    path = cache / key / FILE
    if path.is_file():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    with wait_for_lock(cache / f".{key}.lock"):
        if not path.is_file():
            # Under the lock, leftovers of this matrix can only be those of a builder that was killed.
            for leftover in cache.glob(f".{key}.new.*"):
                shutil.rmtree(leftover)
            temporary = cache / f".{key}.new.{uuid.uuid4().hex}"
            temporary.mkdir()
            try:
                texts = ItemTexts.read(item_index, item_text, template_version)
                _build(temporary / FILE, texts, embeddings, encoder_key, np.dtype(dtype), space, console)
                (temporary / "matrix.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
                temporary.rename(cache / key)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return path


def _build(
    path: Path,
    texts: ItemTexts,
    embeddings: Snapshot,
    encoder_key: str,
    dtype: np.dtype,
    space: VectorSpace | None,
    console: Reporter | None,
) -> None:
    matrix: np.memmap | None = None
    written = np.zeros(texts.distinct, dtype=bool)
    with (console or Reporter(quiet=True)).bar("item matrix", texts.distinct, "texts") as bar:
        for keys, vectors in embeddings_by_text(embeddings, encoder_key):
            text_rows, vector_rows = texts.find(keys)
            is_new = ~written[text_rows]
            text_rows, vector_rows = text_rows[is_new], vector_rows[is_new]
            if not len(text_rows):
                continue
            written[text_rows] = True
            stored = vectors[vector_rows] if space is None else space.apply(vectors[vector_rows])
            if matrix is None:
                matrix = np.lib.format.open_memmap(
                    path, mode="w+", dtype=dtype, shape=(texts.highest_index + 1, stored.shape[1])
                )
            positions, source_rows = texts.positions(text_rows)
            matrix[positions] = _cast(stored, dtype)[source_rows]
            bar.advance(len(text_rows))
    texts.refuse_missing(written)
    assert matrix is not None, "refuse_missing raises unless an embedding was written"
    matrix.flush()
    del matrix
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _cast(vectors: np.ndarray, dtype: np.dtype) -> np.ndarray:
    limit = np.finfo(dtype).max
    largest = float(np.abs(vectors).max())
    if not largest <= limit:
        raise LearnSparkError(
            f"an embedding has the value {largest:.6g}, but {dtype} ends at {float(limit):.6g}; "
            "set embedding_space.dtype: float32"
        )
    return vectors.astype(dtype)
