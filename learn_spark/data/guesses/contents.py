"""What one raw file contains: its format, encoding, separator, columns and a sample of its rows."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

HEAD_BYTES = 4 << 20
GLANCE_BYTES = 16 << 10  # of the many files of one name, only some are read further
SAMPLE_ROWS = 20_000

FileFormat = Literal["csv", "json-lines", "parquet", "delta"]
Row = Mapping[str, str | None]


class UnusableFileError(Exception):
    """A file that holds no table which learn-spark reads; the message is what it is and what to do."""


@dataclass(frozen=True)
class TextLayout:
    """How a text file is written. ``header_note`` is a line before the header (``sep=;``), or "". The encoding is
    ascii where any other one would read the same."""

    encoding: str = "utf-8"
    separator: str = ","
    quote: str = '"'
    escape: str = '"'
    multiline: bool = False
    header_note: str = ""


@dataclass(frozen=True)
class Contents:
    """One file, or one Delta table. ``rows`` are the first rows, every value as text; ``complete``: they are all.

    ``columns`` are in the file's order. ``lists`` are the columns whose values are lists of texts, ``numbers`` and
    ``times`` those that the file itself types so; of CSV and JSON lines all columns are text.
    """

    path: Path
    name: str
    format: FileFormat
    columns: tuple[str, ...]
    rows: tuple[Row, ...] = field(repr=False)
    layout: TextLayout = TextLayout()
    complete: bool = False
    lists: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()
    times: frozenset[str] = frozenset()


# First bytes of what is often put into a folder of exports, but is no table for a stream of rows.
_OTHER_FORMATS = (
    (b"PK\x03\x04", "it is a ZIP archive or an Excel workbook; export it as CSV"),
    (b"\xd0\xcf\x11\xe0", "it is an old Excel workbook; export it as CSV"),
    (b"Obj\x01", "it is Avro; export it as Parquet"),
    (b"ORC", "it is ORC; export it as Parquet"),
    (b"SQLite format 3", "it is an SQLite database; export its tables as CSV"),
    (b"ARROW1", "it is an Arrow file; write it as Parquet"),
    (b"BZh", "it is bzip2; compress it with gzip"),
    (b"\x28\xb5\x2f\xfd", "it is zstd; compress it with gzip"),
    (b"\xfd7zXZ", "it is xz; compress it with gzip"),
)


def read_head(path: Path, most: int = HEAD_BYTES) -> tuple[bytes, bool]:
    """(the first ``most`` bytes, decompressed; whether they are the whole file). Raises UnusableFileError."""
    try:
        with path.open("rb") as stream:
            first = stream.read(16)
            zipped = first[:2] == b"\x1f\x8b"
            if zipped and path.suffix != ".gz":
                raise UnusableFileError(f"it is gzip; name it {path.name}.gz")
            if path.suffix == ".gz" and first and not zipped:
                raise UnusableFileError("it is not gzip; remove .gz from its name")
        opener = gzip.open if zipped else open
        with opener(path, "rb") as content:
            head: bytes = content.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UnusableFileError(f"it cannot be read: {' '.join(str(error).split())[:200]}") from None
    for magic, why in _OTHER_FORMATS:
        if head.startswith(magic):
            raise UnusableFileError(why)
    return head[:most], len(head) <= most
