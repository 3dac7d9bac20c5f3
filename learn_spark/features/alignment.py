"""Alignment of the vectors of two models: a trained space is determined only up to a rotation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SAMPLE = 4096


def rotation(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The orthogonal matrix R [D, D] for which ``before`` R [n, D] is nearest to ``after`` [n, D] in squared distance
    (orthogonal Procrustes: Schoenemann 1966).
    """
    left, _, right = np.linalg.svd(before.astype(np.float64).T @ after.astype(np.float64))
    matrix: np.ndarray = left @ right
    return matrix


def fit_rotation(before: DataFrame, after: DataFrame, key: str) -> np.ndarray | None:
    """The rotation [D, D] of ``before`` onto ``after`` (columns ``key``, embedding).

    Fitted on at most 4,096 entities that both frames have, chosen by a hash of the key. None if no entity is in both,
    or if the vectors differ in length.
    """
    from pyspark.sql import functions as F

    pairs = before.select(key, F.col("embedding").alias("before")).join(
        after.select(key, F.col("embedding").alias("after")), key
    )
    chosen = pairs.orderBy(F.xxhash64(key), key).limit(SAMPLE).select("before", "after").collect()
    if not chosen or len(chosen[0].before) != len(chosen[0].after):
        return None
    return rotation(np.array([row.before for row in chosen]), np.array([row.after for row in chosen]))


def rotated(frame: DataFrame, key: str, matrix: np.ndarray) -> DataFrame:
    """``frame`` (``key``, embedding) with every vector multiplied by ``matrix`` [D, D]."""
    return frame.select(key, "embedding").mapInArrow(_multiply(matrix), f"`{key}` string, embedding array<float>")


def _multiply(matrix: np.ndarray) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if not batch.num_rows:
                continue
            vectors = batch.column(1).flatten().to_numpy(zero_copy_only=False).reshape(batch.num_rows, -1)
            flat = pa.array((vectors @ matrix).astype(np.float32).reshape(-1))
            offsets = pa.array(np.arange(batch.num_rows + 1) * matrix.shape[1], pa.int32())
            lists = pa.ListArray.from_arrays(offsets, flat)
            yield pa.RecordBatch.from_arrays([batch.column(0), lists], names=batch.schema.names)

    return run
