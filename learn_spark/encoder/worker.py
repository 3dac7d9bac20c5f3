"""The engine inside Spark's Python workers: Arrow batches in and out, one model a worker process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from learn_spark.encoder.engine import TextEncoder

OUTPUT = "text_key string, embedding array<float>, n_tokens int, error string, loads int"
_SCHEMA = pa.schema(
    [
        ("text_key", pa.string()),
        ("embedding", pa.list_(pa.float32())),
        ("n_tokens", pa.int32()),
        ("error", pa.string()),
        ("loads", pa.int32()),
    ]
)


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker needs to load its engine."""

    folder: str
    max_tokens: int
    normalise: bool
    token_budget: int
    threads: int


# Survives between the tasks of one worker process (spark.python.worker.reuse), so the model is loaded once in it.
_engines: dict[WorkerSpec, TextEncoder] = {}


def _engine(spec: WorkerSpec) -> tuple[TextEncoder, bool]:
    loaded = spec not in _engines
    if loaded:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        os.environ["HF_HUB_OFFLINE"] = "1"
        from pathlib import Path

        import torch

        from learn_spark.encoder.engine import TextEncoder

        torch.set_num_threads(spec.threads)
        _engines.clear()
        _engines[spec] = TextEncoder(
            Path(spec.folder),
            max_tokens=spec.max_tokens,
            normalise=spec.normalise,
            token_budget=spec.token_budget,
        )
    return _engines[spec], loaded


def encode_partition(spec: WorkerSpec) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for ``DataFrame.mapInArrow`` over columns text_key, text; it yields OUTPUT.

    A row whose vector is unusable has a null embedding and says why in ``error``. ``loads`` is 1 in one row of a
    task that had to load the model.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = [batch for batch in batches if batch.num_rows]
        if not rows:
            return
        table = pa.Table.from_batches(rows)
        engine, loaded = _engine(spec)
        encoded = engine.encode(table["text"].to_pylist())
        yield _to_arrow(table["text_key"].combine_chunks(), encoded.vectors, encoded.n_tokens, encoded.errors, loaded)

    return run


def _to_arrow(
    keys: pa.Array, vectors: np.ndarray, n_tokens: np.ndarray, errors: dict[int, str], loaded: bool
) -> pa.RecordBatch:
    count, width = vectors.shape
    usable = np.ones(count, dtype=bool)
    usable[list(errors)] = False
    # Offsets with a null mark an empty, null list: a refused vector cannot be mistaken for a real one.
    ends = np.cumsum(usable * width, dtype=np.int32)
    offsets = pa.array(np.concatenate([[0], ends]).astype(np.int32), mask=np.append(~usable, False) if errors else None)
    embedding = pa.ListArray.from_arrays(offsets, pa.array(vectors[usable].ravel()))
    first = np.zeros(count, dtype=np.int32)
    first[0] = int(loaded)
    return pa.RecordBatch.from_arrays(
        [
            keys,
            embedding,
            pa.array(n_tokens),
            pa.array([errors.get(i) for i in range(count)], pa.string()),
            pa.array(first),
        ],
        schema=_SCHEMA,
    )
