"""The trained tower inside Spark's Python workers: Arrow batches in and out, one model a worker process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from learn_spark.training.model_store import Model

FEATURES = "id string, embedding array<float>"
_SCHEMA = pa.schema([("id", pa.string()), ("embedding", pa.list_(pa.float32()))])


@dataclass(frozen=True)
class TowerSpec:
    """What a worker needs: the model's folder, and for users the raw item matrix that their histories point into."""

    model_folder: str
    matrix_path: str
    batch_rows: int
    threads: int


_loaded: dict[TowerSpec, tuple[Model, np.ndarray]] = {}


def _load(spec: TowerSpec) -> tuple[Model, np.ndarray]:
    if spec not in _loaded:
        from pathlib import Path

        import torch

        from learn_spark.training.model_store import load_model

        torch.set_num_threads(spec.threads)
        _loaded.clear()
        _loaded[spec] = (
            load_model(Path(spec.model_folder)),
            np.load(spec.matrix_path, mmap_mode="r", allow_pickle=False),
        )
    return _loaded[spec]


def item_features(spec: TowerSpec) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For ``mapInArrow`` over columns id, embedding (raw): each item's vector by the item tower."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import torch

        for batch in _cut(batches, spec.batch_rows):
            model, _ = _load(spec)
            raw = batch["embedding"].flatten().to_numpy(zero_copy_only=False).reshape(batch.num_rows, -1)
            with torch.inference_mode():
                vectors = model.tower.items(torch.from_numpy(raw.copy()))
            yield _to_arrow(batch["id"], vectors.numpy())

    return run


def user_features(spec: TowerSpec) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For ``mapInArrow`` over columns id, item_index, length: each user's vector after its last event."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import torch

        from learn_spark.retrieval.vectors import windows

        for batch in _cut(batches, spec.batch_rows):
            model, matrix = _load(spec)
            items = batch["item_index"].flatten().to_numpy(zero_copy_only=False).reshape(batch.num_rows, -1)
            kept, counts = windows(items, batch["length"].to_numpy().astype(np.int64), model.window)
            with torch.inference_mode():
                vectors = model.tower.user_last(torch.from_numpy(matrix[kept]), torch.from_numpy(counts))
            yield _to_arrow(batch["id"], vectors.numpy())

    return run


def _cut(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def _to_arrow(ids: pa.Array, vectors: np.ndarray) -> pa.RecordBatch:
    count, width = vectors.shape
    offsets = pa.array(np.arange(0, (count + 1) * width, width, dtype=np.int32))
    embedding = pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel()))
    return pa.RecordBatch.from_arrays([ids, embedding], schema=_SCHEMA)
