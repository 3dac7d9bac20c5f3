"""CSV whose records have line breaks: a quote that is never closed would take the rest of its file for one field."""

from __future__ import annotations

import csv
import io
import zlib
from itertools import chain

from learn_spark.data.files.packing import unpacked
from learn_spark.data.sources.source import RawFile, UnreadableFileError
from learn_spark.data.sources.wording import shown

_CHUNK_BYTES = 1 << 24
_END = "\x00end of the file"


def check_quotes_are_closed(file: RawFile, separator: str, quote: str, escape: str | None, encoding: str) -> None:
    """Raise UnreadableFileError, with the line, where a quoted field is open at the end of the file."""
    doubled = escape is None or escape == quote
    try:
        # An even number of quotes, doubled ones inside fields, leaves none open.
        if not quote or len(separator) > 1 or (doubled and encoding[:6] != "utf-16" and _is_even(file, quote)):
            return
        with (
            file.path.open(_CHUNK_BYTES) as packed,
            io.TextIOWrapper(unpacked(file.path.name, packed), encoding, "replace", newline="") as text,
        ):
            reader = csv.reader(
                chain(text, ("\n", _END)),
                delimiter=separator,
                quotechar=quote,
                doublequote=doubled,
                escapechar=None if doubled else escape,
            )
            csv.field_size_limit(1 << 27)
            line = 1
            try:
                for record in reader:
                    if record == [_END]:
                        return
                    line, before = reader.line_num + 1, line
            except csv.Error:
                before = line
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableFileError(file.name, f"it cannot be read: {shown(error)}") from None
    raise UnreadableFileError(
        file.name, f"a quote in the record that begins on line {before:,} is not closed; quote: '' reads quotes as text"
    )


def _is_even(file: RawFile, quote: str) -> bool:
    found, mark = 0, quote.encode()
    with file.path.open(_CHUNK_BYTES) as packed, unpacked(file.path.name, packed) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            found += chunk.count(mark)
    return found % 2 == 0
