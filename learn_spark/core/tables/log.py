"""Small append-only tables (runs, evaluations), written without a JVM under the same contracts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from learn_spark.core.causes import is_storage_error
from learn_spark.core.storage.locks import wait_for_lock
from learn_spark.core.tables.contracts import Contract, ContractError
from learn_spark.core.tables.create import create_table
from learn_spark.core.tables.snapshot import read_arrow

# Functions of SQL that Spark and deltalake (DataFusion) both have; size() of an array is Spark's alone.
_FUNCTIONS = frozenset({"length", "trim", "cast"})


def append_rows(path: str, contract: Contract, rows: Sequence[Mapping[str, Any]]) -> int:
    """Append ``rows`` in one commit; the new version. Raises ContractError if a row violates the contract."""
    unknown = {key for row in rows for key in row} - set(contract.names)
    if unknown:
        raise ContractError(f"{contract.table} has no column {', '.join(sorted(unknown))}")
    try:
        data = pa.Table.from_pylist([dict(row) for row in rows], schema=contract.arrow_schema())
    except pa.ArrowException as error:
        raise ContractError(f"rows do not fit the contract of {contract.table}: {error}") from None
    return append_table(path, contract, data)


def append_table(path: str, contract: Contract, data: pa.Table) -> int:
    """Append an Arrow table in one commit; the new version. Raises ContractError if a row violates the contract."""
    try:
        table = _open_or_create(path, contract)
        # Columns that newer versions added are nullable; a table of an older version gets them with its next row.
        grows = len(table.schema().fields) < len(contract.names)
        mode: Literal["merge"] | None = "merge" if grows else None
        write_deltalake(table, data.cast(contract.arrow_schema()), mode="append", schema_mode=mode)
        return table.version()
    except (DeltaError, pa.ArrowException, ValueError) as error:
        if is_storage_error(error):
            raise
        raise ContractError(f"rows violate the contract of {contract.table}: {' '.join(str(error).split())}") from None


def is_checked_without_spark(contract: Contract) -> bool:
    """Whether deltalake knows all functions of the contract's constraints, so that it can check them."""
    used = {name for condition in contract.constraints.values() for name in re.findall(r"(\w+)\(", condition)}
    return used <= _FUNCTIONS


def table_lock(path: str) -> AbstractContextManager[None]:
    """A lock on the table at ``path`` for an append that depends on existing rows; waits until the lock is free.

    Other appends need no lock, because Delta orders them.
    """
    return wait_for_lock(Path(path).with_name(f".{Path(path).name}.lock"))


def _open_or_create(path: str, contract: Contract) -> DeltaTable:
    try:
        table = DeltaTable(path)
    except TableNotFoundError:
        create_table(path, contract)
        table = DeltaTable(path)
    check_columns(table, contract)
    return table


def check_columns(table: DeltaTable | str, contract: Contract) -> None:
    """Raise ContractError if a table (or the table at a path, if it exists) has other columns than its contract.

    A nullable column may be missing: a newer version added it, and ``append_table`` adds it to the table.
    """
    if isinstance(table, str):
        try:
            table = DeltaTable(table, without_files=True)
        except TableNotFoundError:
            return
    columns = {field.name for field in table.schema().fields}
    required = {column.name for column in contract.columns if not column.nullable}
    missing, extra = sorted(required - columns), sorted(columns - set(contract.names))
    if missing or extra:
        named = [", ".join(names) or "none" for names in (missing, extra)]
        raise ContractError(
            f"the table {table.table_uri} has other columns than its contract (missing: {named[0]}; not in the "
            f"contract: {named[1]}); another version created it: use another workspace, or move the table away"
        )


def read_rows(path: str) -> list[dict[str, Any]]:
    """All rows, with maps as dicts; an empty list if the table does not exist."""
    try:
        table = read_arrow(DeltaTable(path))
    except TableNotFoundError:
        return []
    maps = [field.name for field in table.schema if pa.types.is_map(field.type)]
    return [row | {name: dict(row[name]) for name in maps if row[name] is not None} for row in table.to_pylist()]
