"""Parquet files and Delta tables: columns, types and first rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from learn_spark.data.guesses.contents import SAMPLE_ROWS, Contents, FileFormat, UnusableFileError
from learn_spark.data.guesses.text_files import as_text


def read_parquet(path: Path, name: str, rows: int = SAMPLE_ROWS) -> Contents:
    """The contents of a Parquet file with its first ``rows``. Raises UnusableFileError where it cannot be read."""
    try:
        file = pq.ParquetFile(path)
        batch = next(file.iter_batches(rows), None)
        schema = file.schema_arrow
    except (OSError, pa.ArrowException) as error:
        raise UnusableFileError(f"it cannot be read as Parquet: {' '.join(str(error).split())[:200]}") from None
    table = pa.Table.from_batches([] if batch is None else [batch], schema=schema)
    return _contents(path, name, "parquet", table)


def read_delta(path: Path, name: str) -> Contents:
    """The contents of a Delta table. Raises UnusableFileError where it cannot be read."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        table = DeltaTable(str(path))
        newest = SubTreeFileSystem(str(path.resolve()), LocalFileSystem())
        rows = table.to_pyarrow_dataset(filesystem=newest).head(SAMPLE_ROWS)
    except (OSError, DeltaError, pa.ArrowException) as error:
        raise UnusableFileError(f"it cannot be read as a Delta table: {' '.join(str(error).split())[:200]}") from None
    return _contents(path, name, "delta", rows)


def _contents(path: Path, name: str, kind: FileFormat, rows: pa.Table) -> Contents:
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
        complete=rows.num_rows < SAMPLE_ROWS,
        lists=frozenset(lists),
        numbers=frozenset(numbers),
        times=frozenset(times),
    )


def _iso(value: Any) -> str:
    return str(value.isoformat(sep=" ")) if hasattr(value, "hour") else str(value.isoformat())
