"""Which files cannot be read to their end: asked file by file, only after reading them together failed."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from learn_spark.data.sources.source import RawFile, UnreadableFileError

CHUNK_BYTES = 1 << 24


def first_broken(files: Iterable[RawFile]) -> UnreadableFileError | None:
    """The first file that its archive or Parquet footer belies; None where all can be read."""
    for file in files:
        if why := _what_is_wrong(file):
            return UnreadableFileError(file.name, why)
    return None


def _what_is_wrong(file: RawFile) -> str | None:
    if not file.path.is_file():
        return None if file.path.is_dir() else "it is gone"
    try:
        if file.path.suffix == ".gz":
            with gzip.open(file.path, "rb") as stream:
                while stream.read(CHUNK_BYTES):
                    pass
        elif file.path.suffix == ".parquet":
            table = pq.ParquetFile(file.path)
            for group in range(table.num_row_groups):
                table.read_row_group(group)
        else:
            with file.path.open("rb") as stream:
                while stream.read(CHUNK_BYTES):
                    pass
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        return f"it cannot be read: {' '.join(str(error).split())[:200]}"
    return None
