"""The trained tower in Spark's Python workers: Arrow batches in and out, one loaded model per worker process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from learn_spark.core.storage.path import StoragePath
    from learn_spark.model.towers.tower import Tower

FEATURES = "id string, fingerprint bigint, embedding array<float>"
FEATURES_ARROW = pa.schema([("id", pa.string()), ("fingerprint", pa.int64()), ("embedding", pa.list_(pa.float32()))])


@dataclass(frozen=True)
class TowerSpec:
    """The inputs of a worker.

    ``matrix``: the folder of the item matrix in the model's embedding space; None for a tower that reads no content.
    """

    model_folder: StoragePath
    matrix: StoragePath | None
    batch_rows: int
    threads: int


_loaded: dict[TowerSpec, tuple[Tower, int]] = {}


def _load(spec: TowerSpec) -> tuple[Tower, int]:
    """(the tower that computes vectors, its window in events)."""
    if spec not in _loaded:
        import torch

        from learn_spark.core.storage.worker_files import fetch_for_worker
        from learn_spark.model.feed.item_matrix import FILE, item_matrix
        from learn_spark.model.store import load_model
        from learn_spark.model.towers.bound import BoundTower

        torch.set_num_threads(spec.threads)
        model = load_model(spec.model_folder)
        if isinstance(model.tower, BoundTower) and spec.matrix is not None:
            model.tower.bind(item_matrix(fetch_for_worker(spec.matrix) / FILE))
        _loaded.clear()
        _loaded[spec] = (model.vectors(), model.window)
    return _loaded[spec]


def item_features(spec: TowerSpec) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for ``mapInArrow`` over columns id, fingerprint, item_index: the vectors of the item tower."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import torch

        for batch in _slices(batches, spec.batch_rows):
            index = batch["item_index"].to_numpy().astype(np.int64)
            with torch.inference_mode():
                vectors = _load(spec)[0].items(torch.from_numpy(index))
            yield _to_arrow(batch, vectors.numpy())

    return run


def user_features(spec: TowerSpec) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for ``mapInArrow`` over columns id, fingerprint, item_index, event_time, length: the vectors of users
    after their last event.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from learn_spark.model.towers.vectors import user_vectors

        for batch in _slices(batches, spec.batch_rows):
            tower, window = _load(spec)
            items, times = (
                batch[name].flatten().to_numpy(zero_copy_only=False).reshape(batch.num_rows, -1)
                for name in ("item_index", "event_time")
            )
            lengths = batch["length"].to_numpy().astype(np.int64)
            vectors = user_vectors(tower, items, lengths, window, times=times, batch=spec.batch_rows)
            yield _to_arrow(batch, vectors)

    return run


def _slices(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def _to_arrow(batch: pa.RecordBatch, vectors: np.ndarray) -> pa.RecordBatch:
    count, width = vectors.shape
    offsets = pa.array(np.arange(0, (count + 1) * width, width, dtype=np.int32))
    embedding = pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel()))
    return pa.RecordBatch.from_arrays([batch["id"], batch["fingerprint"], embedding], schema=FEATURES_ARROW)
