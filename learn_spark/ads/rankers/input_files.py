"""Exposures and vectors in files of this machine, read a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from learn_spark.ads.inputs.counts import COUNTS
from learn_spark.ads.inputs.numbering import batches
from learn_spark.ads.inputs.rows import RECENT, SHOWN_LIST, RowFiles
from learn_spark.ads.inputs.vectors import VectorFiles
from learn_spark.ads.rankers.inputs import Inputs, cyclic_time
from learn_spark.ads.rankers.similarity import NEAREST, SIMILARITIES, nearest_of, place_of, score_of
from learn_spark.core.ragged import fixed_lists

READ_ROWS = 65_536
VECTOR_ROWS = 16_384
NO_LIST = 0


@dataclass(frozen=True)
class InputFile:
    """``rows`` exposures of ``fields`` fields as records in a file; their ``vectors`` [1 + R, D] are mapped."""

    path: Path
    rows: int
    fields: int
    vectors: np.ndarray

    def __len__(self) -> int:
        return self.rows

    def read(self, start: int, stop: int) -> Inputs:
        """The exposures ``start`` to ``stop``, in memory."""
        dtype = _record(self.fields)
        records = np.fromfile(self.path, dtype, max(0, stop - start), offset=start * dtype.itemsize)
        return Inputs(
            np.ascontiguousarray(records["rows"]),
            cyclic_time(records["time"]),
            records["user"].copy(),
            records["item"].copy(),
            self.vectors,
            records["label"].copy(),
            records["weight"].copy(),
            records["counts"].copy(),
            records["similarities"].copy(),
        )


def input_file(part: str, files: RowFiles, vectors: np.ndarray, path: Path) -> InputFile:
    """The rows of one part that Spark wrote, copied to a file at ``path``, with their similarities."""
    count = 0
    with path.open("wb") as file:
        for batch in batches(files.parts[part], files.columns, READ_ROWS):
            records = np.empty(batch.num_rows, _record(files.fields))
            records["rows"] = field_rows(batch, files.fields)
            for name, column in (("user", "user_row"), ("item", "item_row")):
                records[name] = batch[column]
            for name in ("time", "label", "weight"):
                records[name] = batch[name]
            records["counts"] = counts_of(batch)
            records["similarities"] = np.nan
            if RECENT in files.more:
                records["similarities"][:, : len(NEAREST)] = nearest_of(records["item"], batch[RECENT], vectors)
            file.write(records.tobytes())
            count += len(records)
    if SHOWN_LIST in files.more:
        _add_places(path, part, files, vectors)
    return InputFile(path, count, files.fields, vectors)


def _add_places(path: Path, part: str, files: RowFiles, vectors: np.ndarray) -> None:
    """Add the places in the lists shown to the records at ``path``: those of one instant are ranked together."""
    dtype, done = _record(files.fields), 0
    left = (np.zeros(0, np.int64), np.zeros(0, np.int64))  # time and list of the rows from ``done`` on
    with path.open("r+b") as file:

        def close(count: int) -> None:
            nonlocal done, left
            if not count:
                return
            time, shown = left
            file.seek(done * dtype.itemsize)
            records = np.frombuffer(file.read(count * dtype.itemsize), dtype).copy()
            score = score_of(records["user"], records["item"], vectors)
            score[shown[:count] == NO_LIST] = np.nan
            _, instant = np.unique(time[:count], return_inverse=True)
            _, of = np.unique(np.stack([instant, shown[:count]], axis=1), axis=0, return_inverse=True)
            records["similarities"][:, len(NEAREST) :] = place_of(score, of.reshape(-1))
            file.seek(done * dtype.itemsize)
            file.write(records.tobytes())
            done, left = done + count, (time[count:], shown[count:])

        for batch in batches(files.parts[part], ["time", SHOWN_LIST], READ_ROWS):
            shown = np.asarray(batch[SHOWN_LIST].fill_null(NO_LIST))
            left = (np.concatenate([left[0], np.asarray(batch["time"])]), np.concatenate([left[1], shown]))
            close(int(np.searchsorted(left[0], left[0][-1])))  # the last instant may go on
        close(len(left[0]))


def counts_of(batch: pa.RecordBatch) -> np.ndarray:
    """COUNTS of the rows, [n, 6] float32."""
    return np.stack([np.asarray(batch[name]) for name in COUNTS], axis=1).astype(np.float32)


def field_rows(batch: pa.RecordBatch, fields: int) -> np.ndarray:
    """The embedding rows [n, F] int32."""
    return np.stack([np.asarray(batch[f"row_{number}"]) for number in range(fields)], axis=1).astype(np.int32)


def vector_file(files: VectorFiles, path: Path) -> np.ndarray:
    """The vectors [1 + R, D] float32 of ``files``, after a row of zeros, mapped from a file at ``path``."""
    width = 0
    with path.open("wb") as file:
        for vectors in _vectors(files):
            if not width:
                width = vectors.shape[1]
                file.write(np.zeros(width, np.float32).tobytes())
            file.write(np.ascontiguousarray(vectors, np.float32).tobytes())
    if not width:
        return np.zeros((1, 0), np.float32)
    return np.memmap(path, np.float32, mode="r", shape=(1 + files.rows, width))


def _vectors(files: VectorFiles) -> Iterator[np.ndarray]:
    for path in files.paths:
        for batch in batches(path, ["embedding"], VECTOR_ROWS):
            yield fixed_lists(pa.chunked_array([batch["embedding"]]))


def _record(fields: int) -> np.dtype[np.void]:
    return np.dtype(
        [
            ("time", np.int64),
            ("user", np.int64),
            ("item", np.int64),
            ("label", np.float32),
            ("weight", np.float32),
            ("rows", np.int32, (fields,)),
            ("counts", np.float32, (len(COUNTS),)),
            ("similarities", np.float32, (len(SIMILARITIES),)),
        ]
    )
