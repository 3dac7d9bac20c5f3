"""The frozen embeddings as one memory-mapped matrix by item_index, built once and shared."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.errors import LearnSparkError
from learn_spark.tables.snapshot import Snapshot


class MissingEmbeddings(LearnSparkError):
    """Items without an embedding under the wanted encoder."""


def item_matrix(path: Path) -> np.ndarray:
    """The matrix [highest index + 1, hidden] float32 at ``path``, memory-mapped; row 0 (padding) is zero."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def item_matrix_path(
    item_index: Snapshot,
    item_text: Snapshot,
    embeddings: Snapshot,
    *,
    template_version: str,
    encoder_key: str,
    cache: Path,
) -> Path:
    """Where the matrix of these snapshots lies; it is built if it is not there yet.

    Raises MissingEmbeddings naming how many items lack a text or an embedding, and some of them.
    """
    parts = (encoder_key, template_version, *(f"{s.path}@{s.version}" for s in (item_index, item_text, embeddings)))
    folder = cache / hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    path = folder / "embeddings.npy"
    if not path.is_file():
        matrix = _build(item_index, item_text, embeddings, template_version, encoder_key)
        temporary = cache / f".{folder.name}.{os.getpid()}"
        temporary.mkdir(parents=True, exist_ok=True)
        np.save(temporary / "embeddings.npy", matrix, allow_pickle=False)
        try:
            temporary.rename(folder)
        except OSError:
            # Built meanwhile by another process, from the same snapshots.
            shutil.rmtree(temporary, ignore_errors=True)
    return path


def _build(
    item_index: Snapshot, item_text: Snapshot, embeddings: Snapshot, template_version: str, encoder_key: str
) -> np.ndarray:
    items = item_index.to_arrow()
    texts = item_text.to_arrow(["item_id", "template_version", "text_key"])
    texts = texts.filter(pc.equal(texts["template_version"], template_version))
    vectors = embeddings.to_arrow(["encoder_key", "text_key", "embedding"])
    vectors = vectors.filter(pc.equal(vectors["encoder_key"], encoder_key))
    text_of_item = pc.index_in(items["item_id"], _flat(texts["item_id"]))
    key = pc.take(_flat(texts["text_key"]), text_of_item)
    vector_of_item = pc.index_in(key, _flat(vectors["text_key"]))
    if vector_of_item.null_count:
        lacking = items["item_id"].filter(pc.is_null(vector_of_item))
        some = ", ".join(lacking.slice(0, 3).to_pylist())
        raise MissingEmbeddings(
            f"{len(lacking):,} of {items.num_rows:,} items have no embedding of this encoder and template (such as "
            f"{some}); run item_text and embed_items, and look into quarantine"
        )
    flat = _flat(vectors["embedding"])
    width = len(flat[0]) if len(flat) else 0
    if pc.min_max(pc.list_value_length(flat)).as_py() != {"min": width, "max": width}:
        raise MissingEmbeddings(f"the embeddings of encoder {encoder_key} have different lengths")
    values = flat.flatten().to_numpy().reshape(-1, width)
    positions = items["item_index"].to_numpy()
    matrix = np.zeros((int(positions.max()) + 1, width), dtype=np.float32)
    matrix[positions] = values[vector_of_item.to_numpy()]
    return matrix


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()
