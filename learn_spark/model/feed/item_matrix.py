"""The frozen embeddings as one memory-mapped matrix by item_index, built once and shared by all processes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from learn_spark.core.console import Reporter
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.model.feed.matrix_rows import TextsOfItems, embeddings_by_text

_FILE = "embeddings.npy"


class VectorSpace(Protocol):
    """What is done to embeddings before they are stored (learn_spark/encoder/embedding_space.py)."""

    def key(self, encoder_key: str) -> str:
        """Names the space and what it was fitted on."""

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors [n, hidden] in the space, [n, dims]."""


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
    """Where the matrix of these snapshots lies; it is built if it is not there yet.

    Built once for an encoder, template, dtype, space and the files of item_index and item_text. The version of
    text_embeddings is no part of that: they are addressed by content, so a text's embedding never changes. Vectors are
    read a few thousand at a time and go straight to the file; in memory are only the ids and text keys of the items.
    Of several builders at once one builds and the others wait.

    Raises MissingEmbeddingsError naming how many items lack a text or an embedding, and some of them, and
    LearnSparkError for values that are not finite or that ``dtype`` does not reach.
    """
    description = {
        "encoder_key": encoder_key,
        "template_version": template_version,
        "dtype": dtype,
        "space_key": None if space is None else space.key(encoder_key),
        **{
            name: {
                "path": s.path,
                "version": s.version,
                "files": hashlib.sha256("\n".join(s.files).encode()).hexdigest(),
            }
            for name, s in (("item_index", item_index), ("item_text", item_text))
        },
    }
    key = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:32]
    path = cache / key / _FILE
    if path.is_file():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    with _lock(cache / f".{key}.lock"):
        if not path.is_file():
            # Under the lock, whatever a builder of this matrix left behind is of one that was killed.
            for remains in cache.glob(f".{key}.new.*"):
                shutil.rmtree(remains)
            temporary = cache / f".{key}.new.{uuid.uuid4().hex}"
            temporary.mkdir()
            try:
                texts = TextsOfItems.read(item_index, item_text, template_version)
                _build(temporary / _FILE, texts, embeddings, encoder_key, np.dtype(dtype), space, console)
                (temporary / "matrix.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
                temporary.rename(cache / key)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return path


def _build(
    path: Path,
    texts: TextsOfItems,
    embeddings: Snapshot,
    encoder_key: str,
    dtype: np.dtype,
    space: VectorSpace | None,
    console: Reporter | None,
) -> None:
    matrix: np.memmap | None = None
    found = np.zeros(texts.distinct, dtype=bool)
    with (console or Reporter(quiet=True)).bar("item matrix", texts.distinct, "texts") as bar:
        for keys, vectors in embeddings_by_text(embeddings, encoder_key):
            text, at = texts.find(keys)
            new = ~found[text]
            text, at = text[new], at[new]
            if not len(text):
                continue
            found[text] = True
            stored = vectors[at] if space is None else space.apply(vectors[at])
            if matrix is None:
                matrix = np.lib.format.open_memmap(
                    path, mode="w+", dtype=dtype, shape=(texts.highest_index + 1, stored.shape[1])
                )
            positions, source = texts.positions(text)
            matrix[positions] = _cast(stored, dtype)[source]
            bar.advance(len(text))
    texts.refuse_missing(found)
    assert matrix is not None, "an item that has a text with an embedding has made the file"
    matrix.flush()
    del matrix
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _cast(vectors: np.ndarray, dtype: np.dtype) -> np.ndarray:
    reach = np.finfo(dtype).max
    largest = float(np.abs(vectors).max())
    if not largest <= reach:
        raise LearnSparkError(f"an embedding holds {largest:.6g}, but {dtype} reaches {float(reach):.6g}; use float32")
    return vectors.astype(dtype)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    # The file stays: removed, two processes could hold locks on two files of one name. A killed holder's lock is gone.
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
