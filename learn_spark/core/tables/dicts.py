"""Arrow tables as dicts of Python's values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def as_dicts(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of an Arrow table, with maps as dicts."""
    # Arrow makes objects a cell of maps and times, which takes several times as long as what is done here.
    others = {name: _values(table[name].combine_chunks()) for name in table.column_names if _is_slow(table[name].type)}
    for name in others:
        table = table.set_column(table.column_names.index(name), name, pa.nulls(len(table)))
    rows: list[dict[str, Any]] = table.to_pylist()
    for name, values in others.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return rows


def _is_slow(kind: pa.DataType) -> bool:
    return pa.types.is_map(kind) or kind == pa.timestamp("us", "UTC")


def _values(column: pa.Array) -> list[Any]:
    """The values of a column of maps or times."""
    valid = column.is_valid().to_pylist()
    if not pa.types.is_map(column.type):
        micros = column.cast(pa.int64()).to_pylist()
        return [
            _EPOCH + timedelta(microseconds=one) if known else None for one, known in zip(micros, valid, strict=True)
        ]
    keys, items, offsets = column.keys.to_pylist(), column.items.to_pylist(), column.offsets.to_pylist()
    return [
        dict(zip(keys[start:end], items[start:end], strict=True)) if known else None
        for start, end, known in zip(offsets[:-1], offsets[1:], valid, strict=True)
    ]
