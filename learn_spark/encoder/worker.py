"""The engine inside Spark's Python workers: Arrow batches in and out, one model per worker process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import tee
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.core.settings.encoder import EncoderSettings
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.storage.worker_files import fetch_for_worker
from learn_spark.encoder.identity import EncoderError

if TYPE_CHECKING:
    from learn_spark.encoder.engine import Encoded, TextEncoder

OUTPUT = (
    "text_key string, embedding array<float>, n_tokens int, truncated boolean, error string, loads int, "
    "padded_tokens bigint, device string"
)
_SCHEMA = pa.schema(
    [
        ("text_key", pa.string()),
        ("embedding", pa.list_(pa.float32())),
        ("n_tokens", pa.int32()),
        ("truncated", pa.bool_()),
        ("error", pa.string()),
        ("loads", pa.int32()),
        ("padded_tokens", pa.int64()),
        ("device", pa.string()),
    ]
)
# A window of long texts ends early, because two windows are in memory.
WINDOW_BYTES = 32 << 20


@dataclass(frozen=True)
class WorkerSpec:
    """The inputs of a worker's engine: the prepared folder, the settings, and the number of threads."""

    folder: StoragePath
    settings: EncoderSettings
    threads: int


# Kept between the tasks of a worker process (spark.python.worker.reuse), so that it loads the model once.
_engines: dict[tuple[WorkerSpec, str], TextEncoder] = {}


def encode_partition(spec: WorkerSpec) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for ``DataFrame.mapInArrow`` over columns text_key, text; it yields OUTPUT.

    A row whose vector is unusable has a null embedding and the reason in ``error``. ``loads`` is 1 in one row of a task
    that loaded the model; ``padded_tokens`` is set in one row of a window; ``device`` in every row.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from learn_spark.encoder.engine import encode_windows

        keyed, texts = tee(windows(batches, spec.settings.window_rows))
        first = next(keyed, None)
        if first is None:
            return
        device, address = device_of_task(spec.settings)
        engine, loaded = engine_of(spec, device)
        encoded = encode_windows(engine, (table["text"].to_pylist() for table in texts))
        yield _to_arrow(first, next(encoded), loaded, address)
        for table, result in zip(keyed, encoded, strict=True):
            yield _to_arrow(table, result, False, address)

    return run


def windows(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """The batches' rows in windows of about ``rows`` rows or WINDOW_BYTES; a window is sorted by length as a whole."""
    window: list[pa.RecordBatch] = []
    count = size = 0
    for batch in batches:
        at = 0
        lengths = pc.fill_null(pc.binary_length(batch["text"]), 0).to_numpy()
        while at < batch.num_rows:
            ends = size + np.cumsum(lengths[at : at + rows - count])
            take = max(1, int(np.searchsorted(ends, WINDOW_BYTES, side="right")))
            take = min(take, len(ends))
            window.append(batch.slice(at, take))
            count, size, at = count + take, int(ends[take - 1]), at + take
            if count >= rows or size >= WINDOW_BYTES or take < len(ends):
                yield pa.Table.from_batches(window)
                window, count, size = [], 0, 0
    if window:
        yield pa.Table.from_batches(window)


def device_of_task(settings: EncoderSettings) -> tuple[str, str]:
    """(torch's device, its description): the GPU whose address Spark assigned to this task, where one was requested.

    Raises EncoderError where a GPU was requested and there is none.
    """
    from pyspark import TaskContext

    context = TaskContext.get()
    resource = context.resources().get("gpu") if context is not None else None
    if settings.gpus > 0 and resource is None:
        raise EncoderError(
            "encoder.gpus requests a GPU per task, but Spark assigned none: set spark.executor.resource.gpu.amount "
            "and a discovery script (docs/cluster.md)"
        )
    address = resource.addresses[0] if resource is not None else None
    if settings.device == "cpu":
        return "cpu", f"cpu (gpu {address})" if address is not None else "cpu"
    import torch

    if torch.cuda.is_available():
        index = cuda_index(address, torch.cuda.device_count())
        return f"cuda:{index}", f"gpu {address if address is not None else index}"
    if settings.device == "cuda" or settings.gpus > 0:
        raise EncoderError(
            f"the encoder is to run on a GPU ({'Spark gave address ' + address if address else 'encoder.device: cuda'}"
            "), but PyTorch finds none: check the driver, and that torch was built for CUDA"
        )
    return "cpu", "cpu"


def cuda_index(address: str | None, visible: int) -> int:
    """PyTorch's number of the GPU with the address that Spark assigned, among ``visible`` GPUs; 0 without an address.

    Raises EncoderError where the address matches none of them, because two tasks would share a GPU while others idle.
    """
    if address is None:
        return 0
    if address.isdecimal() and int(address) < visible:
        return int(address)
    if visible == 1:
        # A container with one GPU numbers it 0, whatever its number on the machine.
        return 0
    raise EncoderError(
        f"Spark assigned the GPU address {address!r}, but PyTorch finds {visible} GPUs, 0 to {visible - 1}: let the "
        "discovery script print their numbers, and run where the worker runs (conf/gpu-addresses.sh, docs/cluster.md)"
    )


def engine_of(spec: WorkerSpec, device: str) -> tuple[TextEncoder, bool]:
    """This process's engine, and whether this call loaded it."""
    loaded = (spec, device) not in _engines
    if loaded:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        os.environ["HF_HUB_OFFLINE"] = "1"
        import torch

        from learn_spark.encoder.engine import open_encoder

        torch.set_num_threads(spec.threads)
        _engines.clear()
        _engines[spec, device] = open_encoder(fetch_for_worker(spec.folder), spec.settings, device)
    return _engines[spec, device], loaded


def _to_arrow(table: pa.Table, encoded: Encoded, loaded: bool, device: str) -> pa.RecordBatch:
    count, width = encoded.vectors.shape
    usable = np.ones(count, dtype=bool)
    usable[list(encoded.errors)] = False
    # A null offset makes a null list, so that an unusable vector cannot be mistaken for a real one.
    ends = np.cumsum(usable * width, dtype=np.int32)
    mask = np.append(~usable, False) if encoded.errors else None
    offsets = pa.array(np.concatenate([[0], ends]).astype(np.int32), mask=mask)
    embedding = pa.ListArray.from_arrays(offsets, pa.array(encoded.vectors[usable].ravel()))
    once = np.zeros(count, dtype=np.int64)
    once[0] = 1
    keys = table["text_key"].combine_chunks()
    return pa.RecordBatch.from_arrays(
        [
            keys if isinstance(keys, pa.Array) else keys.chunk(0),
            embedding,
            pa.array(encoded.n_tokens),
            pa.array(encoded.truncated),
            pa.array([encoded.errors.get(i) for i in range(count)], pa.string())
            if encoded.errors
            else pa.nulls(count, pa.string()),
            pa.array((once * int(loaded)).astype(np.int32)),
            pa.array(once * encoded.padded_tokens),
            pa.array(np.full(count, device)),
        ],
        schema=_SCHEMA,
    )
