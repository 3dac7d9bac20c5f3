"""Small append-only tables (runs, evaluations), written without a JVM under the same contracts."""

from __future__ import annotations

import random
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from learn_spark.core.causes import is_storage_error
from learn_spark.core.storage.path import StoragePath, storage_path
from learn_spark.core.tables.contracts import Contract, ContractError
from learn_spark.core.tables.create import GROWING, commented_schema, create_table
from learn_spark.core.tables.dicts import as_dicts
from learn_spark.core.tables.leases import require_leases
from learn_spark.core.tables.snapshot import commits_at, open_table, rows_of

MOST_FILES = 8  # of a growing table; more are rewritten as one
_MOST_KEYS = 2_000  # in the condition of a commit, which its log records
_COMMIT = "learn-spark-commit"  # name of a commit, in its metadata
_LOOK_BACK = 50  # commits
_LONGEST_PAUSE = 0.2  # seconds before an append that another commit came before is tried again

# Functions of SQL that Spark and deltalake (DataFusion) both have; size() of an array is Spark's alone.
_FUNCTIONS = frozenset({"length", "trim", "cast"})


def append_rows(path: str, contract: Contract, rows: Sequence[Mapping[str, Any]]) -> int:
    """Append ``rows`` in one commit; the new version. Raises ContractError if a row violates the contract."""
    return append_table(path, contract, _to_arrow(contract, rows))


def append_table(path: str, contract: Contract, data: pa.Table) -> int:
    """Append an Arrow table in one commit; the new version. Raises ContractError if a row violates the contract."""
    with _naming(contract):
        return _append(_open_or_create(path, contract), contract, data, CommitProperties())


def append_parts(path: str, contract: Contract, parts: Iterable[pa.Table]) -> int:
    """Append Arrow tables in one commit, with one of them in memory at a time; the new version.

    Raises ContractError if a row violates the contract.
    """
    with _naming(contract):
        return _append(_open_or_create(path, contract), contract, parts, CommitProperties())


def replace_rows(path: str, contract: Contract, data: pa.Table, where: str) -> int:
    """Replace the rows that satisfy ``where`` by those of an Arrow table, in one commit; the new version.

    Raises ContractError if a row violates the contract, or does not satisfy ``where`` itself.
    """
    with _naming(contract):
        table = _open_or_create(path, contract)
        write_deltalake(table, data.cast(contract.arrow_schema()), mode="overwrite", predicate=where)
        return table.version()


def where_keys(contract: Contract, rows: pa.Table) -> str | None:
    """The condition in SQL of the rows with the keys of ``rows``, for keys that are texts, of which at most one column
    has several values; None for other keys, and where the condition would be long.
    """
    keys = {name: rows[name].unique().to_pylist() for name in contract.key}
    plain = all(isinstance(value, str) for values in keys.values() for value in values)
    if not plain or sum(len(values) > 1 for values in keys.values()) > 1 or rows.num_rows > _MOST_KEYS:
        return None
    lists = {name: ", ".join("'" + value.replace("'", "''") + "'" for value in values) for name, values in keys.items()}
    return " AND ".join(f"{name} IN ({values})" for name, values in lists.items())


def append_depending(
    path: str, contract: Contract, rows: Callable[[], Sequence[Mapping[str, Any]]]
) -> Sequence[Mapping[str, Any]]:
    """Append the rows that ``rows`` makes of what the table has, in one commit (none if it makes none); those rows.

    No other commit comes between what ``rows`` reads and this one: where one did, ``rows`` is called again. Raises
    ContractError as ``append_rows``.
    """
    while True:
        with _naming(contract):
            table = _open_or_create(path, contract)
        made = rows()
        if not made:
            return made
        data, name = _to_arrow(contract, made), secrets.token_hex(8)
        commit = CommitProperties(custom_metadata={_COMMIT: name}, max_commit_retries=0)
        try:
            with _naming(contract):
                _append(table, contract, data, commit)
        except CommitFailedError:
            # Refused, or accepted by a request whose answer was lost, so that it was sent again and refused.
            if any(one.get(_COMMIT) == name for one in open_table(path).history(_LOOK_BACK)):
                return made
            time.sleep(random.uniform(0.0, _LONGEST_PAUSE))
            continue
        return made


def _to_arrow(contract: Contract, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    unknown = {key for row in rows for key in row} - set(contract.names)
    if unknown:
        raise ContractError(f"{contract.table} has no column {', '.join(sorted(unknown))}")
    try:
        return pa.Table.from_pylist([dict(row) for row in rows], schema=contract.arrow_schema())
    except pa.ArrowException as error:
        raise ContractError(f"rows do not fit the contract of {contract.table}: {error}") from None


def _append(
    table: DeltaTable, contract: Contract, data: pa.Table | Iterable[pa.Table], commit: CommitProperties
) -> int:
    # Columns that newer versions added are nullable; a table of an older version gets them with its next row.
    grows = len(table.schema().fields) < len(contract.names)
    mode: Literal["merge"] | None = "merge" if grows else None
    schema = commented_schema(contract) if grows else contract.arrow_schema()
    rows: pa.Table | pa.RecordBatchReader
    if isinstance(data, pa.Table):
        rows = data.cast(schema)
    else:
        batches = (batch for part in data for batch in part.cast(schema).to_batches())
        rows = pa.RecordBatchReader.from_batches(schema, batches)
    write_deltalake(table, rows, mode="append", schema_mode=mode, commit_properties=commit)
    if contract.table in GROWING and len(table.file_uris()) > MOST_FILES:
        # A file a commit: read one by one, they would take longer every day. Another writer's commit goes first.
        with suppress(CommitFailedError):
            table.optimize.compact()
    return table.version()


@contextmanager
def _naming(contract: Contract) -> Iterator[None]:
    try:
        yield
    except CommitFailedError:
        raise
    except (DeltaError, pa.ArrowException, ValueError) as error:
        if is_storage_error(error):
            raise
        raise ContractError(f"rows violate the contract of {contract.table}: {' '.join(str(error).split())}") from None


def is_checked_without_spark(contract: Contract) -> bool:
    """Whether deltalake knows all functions of the contract's constraints, so that it can check them."""
    used = {name for condition in contract.constraints.values() for name in re.findall(r"(\w+)\(", condition)}
    return used <= _FUNCTIONS


def _open_or_create(path: str, contract: Contract) -> DeltaTable:
    require_leases(storage_path(path))
    try:
        table = open_table(path)
    except TableNotFoundError:
        create_table(path, contract)
        table = open_table(path)
    check_columns(table, contract)
    return table


def check_columns(table: DeltaTable | str, contract: Contract) -> None:
    """Raise ContractError if a table (or the table at a path, if it exists) has other columns than its contract.

    A nullable column may be missing: a newer version added it, and ``append_table`` adds it to the table.
    """
    if isinstance(table, str):
        try:
            table = open_table(table)
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


def add_new_columns(path: str, contract: Contract) -> None:
    """Add the nullable columns to the table at ``path`` that it lacks; nothing where there is no table.

    Raises ContractError if it has other columns than its contract.
    """
    check_columns(path, contract)
    try:
        table = open_table(path)
    except TableNotFoundError:
        return
    if len(table.schema().fields) < len(contract.names):
        append_table(path, contract, contract.arrow_schema().empty_table())


def read_rows(
    path: str, columns: Sequence[str] | None = None, where: ds.Expression | None = None
) -> list[dict[str, Any]]:
    """All rows, or those that satisfy ``where``, with ``columns`` only, and with maps as dicts; an empty list if the
    table does not exist. ``where`` must not compare texts of more than 32 characters, after which statistics end.

    At an address, all rows are kept in memory until the table has another commit, which one request tells.
    """
    place = storage_path(path)
    if not place.is_local and columns is None and where is not None:
        commits = commits_at(place)
        return as_dicts(rows_of_newest(place, commits, where)[1]) if commits else []
    if place.is_local or columns is not None:
        try:
            return as_dicts(rows_of(open_table(place), place, None if columns is None else list(columns), where))
        except TableNotFoundError:
            return []
    commits = commits_at(place)
    if not commits:
        forget_log(place)
        return []
    known, mark = _read_before.get(place), max(commits.items())
    if known is None or known[0] != mark:
        known = _read_before[place] = (mark, as_dicts(rows_of_newest(place, commits)[1]))
    return [dict(row) for row in known[1]]


_read_before: dict[str, tuple[tuple[int, int], list[dict[str, Any]]]] = {}
# With the time of the commit at which each is.
_opened: dict[str, tuple[DeltaTable, int]] = {}


def forget_log(path: str) -> None:
    """Forget what was read of the log of a table that does not exist any more."""
    _opened.pop(path, None)


def _at_newest(path: StoragePath, commits: Mapping[int, int]) -> DeltaTable:
    """The table at the newest of ``commits`` (commits_at). Of a log that this process has read, only the commits since
    are read; a log whose commit of that version is another one, or gone, is read anew.
    """
    version = max(commits)
    # Taken out, so that no other thread moves it on meanwhile.
    table, changed_ns = _opened.pop(path, (None, 0))
    if table is None or commits.get(table.version()) != changed_ns:
        table = open_table(path)
    elif table.version() < version:
        table.update_incremental()
    return table if table.version() == version else open_table(path, version)


def rows_of_newest(
    path: StoragePath, commits: Mapping[int, int], where: ds.Expression | None = None
) -> tuple[str, pa.Table]:
    """(id of the table, its rows that satisfy ``where``) at the newest of ``commits`` (commits_at, not empty); at an
    address by the log that this process has read before, and the commits since.
    """
    table = open_table(path) if path.is_local else _at_newest(path, commits)
    rows = rows_of(table, path, where=where)
    if not path.is_local:
        _opened[path] = (table, commits[max(commits)])
    return str(table.metadata().id), rows
