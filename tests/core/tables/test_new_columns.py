"""A table of an earlier version gets the nullable columns that it lacks, and keeps its rows."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from learn_spark.core.tables.contracts import ContractError, contract
from learn_spark.core.tables.log import add_new_columns, open_table, read_rows
from learn_spark.core.tables.snapshot import current_version

EXPOSURES = contract("exposures")
ROW = {
    "event_id": "e",
    "user_id": "u",
    "item_id": "i",
    "event_time": datetime(2024, 1, 1, tzinfo=UTC),
    "converted": True,
    "weight": 1.0,
}


def planted(folder: Path, without: str) -> str:
    path, schema = str(folder / without), EXPOSURES.arrow_schema()
    rows = pa.Table.from_pylist([ROW], schema=schema)
    write_deltalake(path, rows.drop([without]))
    return path


def test_a_nullable_column_is_added_once(tmp_path: Path) -> None:
    path = planted(tmp_path, "request_id")
    add_new_columns(path, EXPOSURES)
    assert [field.name for field in open_table(path).schema().fields] == EXPOSURES.names
    (row,) = read_rows(path)
    assert {name: row[name] for name in ROW} == ROW
    assert row["request_id"] is None
    version = current_version(path)
    add_new_columns(path, EXPOSURES)
    assert current_version(path) == version


def test_no_table_is_made_and_a_column_that_every_row_needs_is_not_guessed(tmp_path: Path) -> None:
    add_new_columns(str(tmp_path / "none"), EXPOSURES)
    assert current_version(str(tmp_path / "none")) is None
    with pytest.raises(ContractError, match="missing: converted"):
        add_new_columns(planted(tmp_path, "converted"), EXPOSURES)
