"""Rows as dicts: the values that Arrow itself gives, in the columns' order."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa

from learn_spark.core.tables.dicts import as_dicts

TIME = datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC)
EARLY = datetime(1969, 7, 20, 20, 17, 40, 1, tzinfo=UTC)


def test_rows_are_those_of_arrow() -> None:
    schema = pa.schema(
        [
            ("name", pa.string()),
            ("at", pa.timestamp("us", "UTC")),
            ("counts", pa.map_(pa.string(), pa.int64())),
            ("local", pa.timestamp("ns")),
            ("values", pa.list_(pa.float32())),
        ]
    )
    rows = [
        {"name": "a", "at": TIME, "counts": [("x", 1), ("y", None)], "local": None, "values": [1.5]},
        {"name": None, "at": None, "counts": None, "local": datetime(2026, 1, 1), "values": None},
        {"name": "c", "at": EARLY, "counts": [], "local": None, "values": []},
        {"name": "d", "at": TIME, "counts": [("z", -3)], "local": None, "values": [2.0, 0.0]},
    ]
    table = pa.Table.from_pylist(rows, schema)
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1, 0), table.slice(1)])
    expected = table.to_pylist()
    for row, of_arrow in zip(rows, expected, strict=True):
        of_arrow["counts"] = None if row["counts"] is None else dict(row["counts"])  # type: ignore[call-overload]
    for given in (table, chunked):
        assert as_dicts(given) == expected
        assert as_dicts(given.slice(2)) == expected[2:]
    assert list(as_dicts(chunked)[0]) == schema.names
    assert as_dicts(table)[0]["at"].utcoffset().total_seconds() == 0
    assert as_dicts(table.slice(0, 0)) == []
