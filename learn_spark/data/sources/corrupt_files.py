"""Find the corrupt file, one by one, after reading files together failed."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from learn_spark.data.sources.source import RawFile, UnreadableFileError

CHUNK_BYTES = 1 << 24


def first_corrupt_file(files: Iterable[RawFile]) -> UnreadableFileError | None:
    """The first corrupt file (a bad gzip stream or Parquet footer); None where all can be read."""
    for file in files:
        if why := _fault(file):
            return UnreadableFileError(file.name, why)
    return None


def _fault(file: RawFile) -> str | None:
    if not file.path.is_file():
        return None if file.path.is_dir() else "it was removed"
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
