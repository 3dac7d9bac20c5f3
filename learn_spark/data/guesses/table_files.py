"""Parquet files and Delta tables: columns, types and first rows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from learn_spark.core.storage.path import storage_path
from learn_spark.core.tables.inside import OutsideError, file_inside
from learn_spark.data.guesses.contents import SAMPLE_ROWS, Contents, FileFormat, UnusableFileError
from learn_spark.data.guesses.text_files import as_text

SAMPLE_BYTES = 64 << 20
_ROWS_AT_ONCE = 128


def read_parquet(path: Path, name: str, rows: int = SAMPLE_ROWS) -> Contents:
    """The contents of a Parquet file with its first ``rows``. Raises UnusableFileError where it cannot be read."""
    try:
        file = pq.ParquetFile(path)
        table = _first(file.iter_batches(_ROWS_AT_ONCE), file.schema_arrow, rows)
    except (OSError, pa.ArrowException, MemoryError) as error:
        raise UnusableFileError(f"it cannot be read as Parquet: {' '.join(str(error).split())[:200]}") from None
    return _contents(path, name, "parquet", table, complete=table.num_rows == file.metadata.num_rows)


def read_delta(path: Path, name: str) -> Contents:
    """The contents of a Delta table. Raises UnusableFileError where it cannot be read."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        table = DeltaTable(str(path))
        for file in pa.table(table.get_add_actions())["path"].to_pylist():
            file_inside(storage_path(path), file)
        newest = SubTreeFileSystem(str(path.resolve()), LocalFileSystem())
        data = table.to_pyarrow_dataset(filesystem=newest)
        # Without reading ahead: batches of which only the first are used may be of any size.
        batches = data.to_batches(batch_size=_ROWS_AT_ONCE, batch_readahead=1, fragment_readahead=1, use_threads=False)
        rows = _first(batches, data.schema, SAMPLE_ROWS)
        complete = rows.num_rows == data.count_rows()
    except (OSError, DeltaError, pa.ArrowException, MemoryError, OutsideError) as error:
        raise UnusableFileError(f"it cannot be read as a Delta table: {' '.join(str(error).split())[:200]}") from None
    return _contents(path, name, "delta", rows, complete=complete)


def _first(batches: Iterable[pa.RecordBatch], schema: pa.Schema, rows: int) -> pa.Table:
    """The first ``rows``, or those that have SAMPLE_BYTES: by a dictionary a small file may have values of any size."""
    chosen: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        chosen.append(batch.slice(0, rows))
        rows -= batch.num_rows
        size += batch.nbytes
        if rows <= 0 or size > SAMPLE_BYTES:
            break
    return pa.Table.from_batches(chosen, schema=schema)


def _contents(path: Path, name: str, kind: FileFormat, rows: pa.Table, *, complete: bool) -> Contents:
    columns: dict[str, list[str | None]] = {}
    lists, numbers, times = set(), set(), set()
    for field, column in zip(rows.schema, rows.columns, strict=True):
        of = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_list(of) or pa.types.is_large_list(of):
            if not (pa.types.is_string(of.value_type) or pa.types.is_large_string(of.value_type)):
                continue
            lists.add(field.name)
            columns[field.name] = [", ".join(map(str, one)) if one else None for one in column.to_pylist()]
        elif pa.types.is_timestamp(of) or pa.types.is_date(of):
            times.add(field.name)
            plain = column.cast(pa.timestamp("us", of.tz), safe=False) if pa.types.is_timestamp(of) else column
            columns[field.name] = [None if one is None else _iso(one) for one in plain.to_pylist()]
        elif not pa.types.is_nested(of) and not pa.types.is_binary(of):
            if pa.types.is_integer(of) or pa.types.is_floating(of) or pa.types.is_decimal(of):
                numbers.add(field.name)
            columns[field.name] = [as_text(one) for one in column.to_pylist()]
    if not columns:
        raise UnusableFileError("it has no column of plain values")
    values = zip(*columns.values(), strict=True)
    return Contents(
        path,
        name,
        kind,
        tuple(columns),
        tuple(dict(zip(columns, row, strict=True)) for row in values),
        complete=complete,
        lists=frozenset(lists),
        numbers=frozenset(numbers),
        times=frozenset(times),
    )


def _iso(value: Any) -> str:
    return str(value.isoformat(sep=" ")) if hasattr(value, "hour") else str(value.isoformat())
