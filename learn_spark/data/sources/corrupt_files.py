"""Find the corrupt file, one by one, after reading files together failed."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from learn_spark.core.errors import LearnSparkError
from learn_spark.data.files.packing import unpacked
from learn_spark.data.sources.source import RawFile, UnreadableFileError
from learn_spark.data.sources.wording import shown

CHUNK_BYTES = 1 << 24
LONGEST_LINE = 1 << 26  # bytes; Spark has each line in memory, several times
_ROWS_AT_ONCE = 256  # small, because a dictionary gives a small file values of any size


def first_corrupt_file(files: Iterable[RawFile], error: Exception | None = None) -> UnreadableFileError | None:
    """The first corrupt file (a bad gzip stream or Parquet footer, a line beyond LONGEST_LINE), else the one that
    Spark's ``error`` names; None where all can be read.
    """
    files = list(files)
    for file in files:
        if why := _fault(file):
            return UnreadableFileError(file.name, why)
    told = str(error) if error is not None else ""
    if "FAILED_READ_FILE" in told or "PATH_NOT_FOUND" in told:
        for file in files:
            if file.path.spark.removeprefix("file:") in unquote(told):
                return UnreadableFileError(file.name, f"Spark cannot read it: {shown(innermost_cause(told))}")
    return None


@contextmanager
def naming_corrupt_files(files: Iterable[RawFile]) -> Iterator[None]:
    """Raise UnreadableFileError where reading ``files`` fails because one of them is corrupt."""
    try:
        yield
    except LearnSparkError:
        raise
    except Exception as error:
        if broken := first_corrupt_file(files, error):
            raise broken from error
        raise


def innermost_cause(trace: str) -> str:
    """The last cause in a stack trace of Java, without the name of its class."""
    causes = re.findall(r"Caused by: (?:[\w$]+\.)*[\w$]+: ([^\n]+)", trace)
    return causes[-1] if causes else next((line for line in trace.splitlines() if line.strip()), "")


def _longest_line(stream: BinaryIO) -> int:
    """Bytes of the longest line up to its end: the first one beyond LONGEST_LINE ends the reading."""
    longest = length = 0
    while block := stream.read(CHUNK_BYTES):
        first, *others = re.split(rb"[\r\n]", block)
        longest = max(longest, length + len(first), *map(len, others))
        length = len(others[-1]) if others else length + len(first)
        if longest > LONGEST_LINE:
            break
    return longest


def _fault(file: RawFile) -> str | None:
    if file.is_table or file.is_partition:
        return None
    if not file.path.is_file():
        return None if file.path.is_folder() else "it was removed"
    try:
        with file.path.open(CHUNK_BYTES) as packed:
            if file.path.suffix == ".parquet" or packed.read(4) == b"PAR1":
                table = pq.ParquetFile(file.path.inner, filesystem=file.path.file_system)
                for _ in table.iter_batches(_ROWS_AT_ONCE):
                    pass
                return None
            packed.seek(0)
            with unpacked(file.path.name, packed) as stream:
                if _longest_line(stream) > LONGEST_LINE:
                    return f"it has a line of more than {LONGEST_LINE >> 20} MiB, which is no row of a table: remove it"
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        return f"it cannot be read: {shown(error)}"
    return None
