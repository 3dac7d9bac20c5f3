"""The file of users to erase: one id a line, or a column user_id of a CSV or Parquet file."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from learn_spark.core.errors import SettingsError
from learn_spark.core.storage.file_systems import StorageError
from learn_spark.core.storage.path import S3Access, StoragePath, storage_path

COLUMN = "user_id"


def read_ids(file: str, s3: S3Access) -> pa.Table:
    """The ids as they are written, a column user_id (string), with repetitions. Raises SettingsError."""
    try:
        path = storage_path(file, s3)
    except StorageError as error:
        raise SettingsError(f"--users: {error}") from None
    try:
        ids = _read(path)
    except FileNotFoundError:
        raise SettingsError(f"--users: there is no file {path}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"--users: {path} is not UTF-8 (byte {error.start:,}); save it as UTF-8") from None
    except (pa.ArrowException, OSError) as error:
        raise SettingsError(f"--users: {path} cannot be read: {' '.join(str(error).split())[:200]}") from None
    if not len(ids):
        raise SettingsError(f"--users: {path} has no id; give one id a line, or a CSV or Parquet file with {COLUMN}")
    return pa.table({COLUMN: ids})


def _read(path: StoragePath) -> pa.ChunkedArray:
    if path.is_folder():
        raise SettingsError(f"--users: {path} is a folder; name a file")
    if path.suffix == ".parquet":
        names = pq.read_schema(path.inner, filesystem=path.file_system).names
        _require_column(path, names)
        column = pq.read_table(path.inner, columns=[COLUMN], filesystem=path.file_system)[COLUMN]
        if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
            if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
                raise SettingsError(
                    f"--users: the column {COLUMN} of {path} is {column.type}; it must be text or numbers"
                )
            column = column.cast(pa.string())
        return column.cast(pa.string()).drop_null()
    content = path.read_bytes()
    if not content.strip():
        return pa.chunked_array([], pa.string())
    first = content.split(b"\n", 1)[0].decode("utf-8-sig").strip()
    names = [name.strip().strip('"') for name in first.split(",")]
    if path.suffix == ".csv" or COLUMN in names:
        _require_column(path, names)
        content.decode("utf-8")
        types = pc_csv.ConvertOptions(column_types={COLUMN: pa.string()}, include_columns=[COLUMN])
        return pc_csv.read_csv(pa.BufferReader(content), convert_options=types)[COLUMN].drop_null()
    lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    return pa.chunked_array([[line for line in lines if line]], pa.string())


def _require_column(path: StoragePath, names: list[str]) -> None:
    if COLUMN not in names:
        raise SettingsError(f"--users: {path} has no column {COLUMN}; its columns are {', '.join(names[:10])}")
