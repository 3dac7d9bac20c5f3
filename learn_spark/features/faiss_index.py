"""A FAISS index of released item vectors on disk: the index, the item ids of its numbers, and a manifest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from learn_spark.core.settings.features import IndexSettings
from learn_spark.core.storage.folders import local_copy
from learn_spark.core.storage.path import StoragePath, storage_path
from learn_spark.features.index_manifest import (
    MANIFEST_FILE,
    IndexFacts,
    IndexManifest,
    ItemIndexError,
    read_manifest,
    seal,
    write_manifest,
)
from learn_spark.features.index_vectors import ItemVectors

INDEX_FILE, IDS_FILE = "items.faiss", "item_ids.parquet"
KINDS = {
    "flat": faiss.IndexFlat,
    "hnsw": faiss.IndexHNSWFlat,
    "ivf": faiss.IndexIVFFlat,
    "ivf_pq": faiss.IndexPreTransform,
}
SEED = 1234
FEWEST_A_CELL = 39  # vectors that FAISS needs to train a cell


@dataclass(frozen=True)
class ItemIndex:
    """A searchable index; ``item_ids`` [N] are the item ids of its numbers 0..N-1."""

    index: Any
    item_ids: pa.Array
    manifest: IndexManifest

    def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, list[list[str]]]:
        """(scores [B, <= k], item ids) of the items with the largest inner products with ``vectors`` [B, D].

        Highest scores first. An approximate index may return fewer than k items.
        """
        k = min(k, len(self.item_ids))
        scores, numbers = self.index.search(np.ascontiguousarray(vectors, dtype=np.float32), k)
        return scores, [self.item_ids.take(pa.array(row[row >= 0])).to_pylist() for row in numbers]


def build(items: ItemVectors, settings: IndexSettings) -> Any:
    """An index of the settings' kind over ``items``, which are added block by block."""
    count, dim = items.vectors.shape
    if settings.kind == "flat":
        index: Any = faiss.IndexFlatIP(dim)
    elif settings.kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, settings.links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = settings.ef_construction
        index.hnsw.efSearch = settings.ef_search
    else:
        cells = settings.nlist or round(4 * count**0.5)
        cells = max(1, min(cells, count if settings.nlist else count // FEWEST_A_CELL))
        if settings.kind == "ivf":
            index = cell_index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, cells, faiss.METRIC_INNER_PRODUCT)
        else:
            index, cell_index = _product_quantised(count, dim, cells, settings.code_bytes)
        cell_index.cp.seed = SEED
        cell_index.nprobe = min(settings.nprobe, cells)
        sample = max(settings.trained_items, FEWEST_A_CELL * cells)
        rows = np.arange(count)
        if count > sample:
            rows = np.sort(np.random.default_rng(SEED).choice(count, sample, replace=False))
        index.train(np.ascontiguousarray(items.vectors[rows]))
    for block in items.blocks():
        index.add(block)
    return index


def _product_quantised(count: int, dim: int, cells: int, code_bytes: int) -> tuple[Any, Any]:
    """(an index whose cells have codes of at most ``code_bytes`` bytes a vector, its part with the cells).

    Product quantisation (Jégou et al., PAMI 2011) cuts a vector into equal parts: zeros are appended where their number
    does not divide ``dim``.
    """
    parts = min(code_bytes, dim)
    padded = -(-dim // parts) * parts
    bits = min(8, max(1, int(np.log2(max(count, 2))) - 2))  # few vectors cannot train 256 codes
    cell_index = faiss.IndexIVFPQ(faiss.IndexFlatIP(padded), padded, cells, parts, bits, faiss.METRIC_INNER_PRODUCT)
    evenly_spread: Any = False
    return faiss.IndexPreTransform(faiss.RemapDimensionsTransform(dim, padded, evenly_spread), cell_index), cell_index


def save(folder: Path, index: Any, item_ids: pa.Array, facts: IndexFacts) -> IndexManifest:
    """Write the three files into ``folder``; returns the manifest."""
    faiss.write_index(index, str(folder / INDEX_FILE))
    pq.write_table(pa.table({"item_id": item_ids}), folder / IDS_FILE)
    files = {name: _sha256(folder / name) for name in (INDEX_FILE, IDS_FILE)}
    manifest = seal(facts, items=index.ntotal, dim=index.d, files=files)
    write_manifest(folder, manifest)
    return manifest


def load(where: StoragePath | Path, *, release_id: str | None = None, cache: Path | None = None) -> ItemIndex:
    """The index in the folder ``where``; ``cache``: the folder of this machine for copies of indexes at addresses.

    Raises ItemIndexError if a file is missing or differs from its checksum, if the manifest was changed or does not
    match the index, or if the index is not of ``release_id``.
    """
    place = storage_path(where)
    manifest = read_manifest(place)
    folder = local_copy(place, MANIFEST_FILE, cache or Path("~/.cache/learn-spark/indexes").expanduser())
    if release_id is not None and manifest.release_id != release_id:
        raise ItemIndexError(f"{folder} is an index of release {manifest.release_id}, not of {release_id}")
    for name, expected in manifest.files.items():
        if not (folder / name).is_file():
            raise ItemIndexError(f"{folder} lacks {name}; run export_index again")
        if _sha256(folder / name) != expected:
            raise ItemIndexError(f"{folder / name} differs from its checksum in the manifest; run export_index again")
    index = faiss.read_index(str(folder / INDEX_FILE))
    item_ids = pq.read_table(folder / IDS_FILE)["item_id"].combine_chunks()
    listed = (manifest.items, manifest.items, manifest.dim)
    if (index.ntotal, len(item_ids), index.d) != listed or not isinstance(index, KINDS[manifest.kind]):
        raise ItemIndexError(
            f"{folder}: the manifest lists a {manifest.kind} index of {listed[0]:,} items x {listed[2]}; the "
            f"files have a {type(index).__name__} of {index.ntotal:,} vectors x {index.d} and {len(item_ids):,} ids. "
            "Run export_index again"
        )
    return ItemIndex(index, item_ids, manifest)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
