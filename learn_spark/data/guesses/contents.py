"""What one raw file contains: its format, encoding, separator, columns and a sample of its rows."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from learn_spark.data.files.packing import packing_fault, unpacked

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


def read_head(path: Path, most: int = HEAD_BYTES) -> tuple[bytes, bool]:
    """(the first ``most`` bytes, decompressed; whether they are the whole file). Raises UnusableFileError."""
    try:
        with path.open("rb") as stream:
            first = stream.read(16)
        if why := packing_fault(path.name, first):
            raise UnusableFileError(why)
        with path.open("rb") as packed, unpacked(path.name, packed) as content:
            head = content.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UnusableFileError(f"it cannot be read: {' '.join(str(error).split())[:200]}") from None
    return head[:most], len(head) <= most
