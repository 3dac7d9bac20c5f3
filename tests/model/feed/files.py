"""Histories for the feed's tests as plain Parquet files, with the snapshot that a Delta log would give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.model.feed.shuffle import Rows

COLUMNS = ["row", "item_index", "train_length"]
WIDTH = 8


def write_files(folder: Path, file_rows: Sequence[int], *, row_group: int = 1000) -> Snapshot:
    """Row n of the snapshot has row = n, item_index = [n + 1, ... , n + 8] and a length of 1 to 8, mostly short."""
    folder.mkdir(parents=True, exist_ok=True)
    files, first = [], 0
    for number, rows in enumerate(file_rows):
        row = np.arange(first, first + rows)
        items = (row[:, None] + 1 + np.arange(WIDTH)).astype(np.int32)
        lengths = np.minimum(np.random.default_rng(number).geometric(0.5, rows), WIDTH).astype(np.int32)
        table = pa.table(
            {
                "row": row,
                "item_index": pa.FixedSizeListArray.from_arrays(items.ravel(), WIDTH).cast(pa.list_(pa.int32())),
                "train_length": lengths,
                "user_id": [f"u{n}" for n in row],
            }
        )
        path = folder / f"part {number:05}.parquet"
        pq.write_table(table, path, row_group_size=row_group)
        files.append(str(path))
        first += rows
    return Snapshot(str(folder), 0, tuple(files), tuple(file_rows))


def rows_of(batches: Iterable[Rows]) -> list[int]:
    """The rows of all batches in their order."""
    return [int(row) for batch in batches for row in batch["row"]]
