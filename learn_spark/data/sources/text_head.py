"""The beginning of a text file, without Spark: packing, encoding, header."""

from __future__ import annotations

import codecs
import csv
import io
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from learn_spark.data.files.conventions import noted_separator
from learn_spark.data.files.packing import packing_fault, unpacked
from learn_spark.data.sources.source import RawFile, UnreadableFileError
from learn_spark.data.sources.wording import shown

HEADER_BYTES = 1 << 20
FEWEST_BROKEN = 3
MOST_COLUMNS = 10_000  # Spark plans a row of more for minutes
_JSON = re.compile(r'\s*\[?\s*\{\s*(?:"[^"[]*"\s*:|$)|\s*\[\s*$')
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True)
class CsvHeader:
    """A CSV file's header: the names as they are, the line itself, and what ``sep=;`` above it says (None: nothing)."""

    names: tuple[str, ...]
    line: str
    separator: str | None = None


def head_text(file: RawFile, encoding: str = "utf-8", *, strict: bool = False) -> str:
    """The first MiB as text, without byte order mark and leading blank lines.

    With ``strict`` most of what is not ASCII must be valid in UTF-8, if that is the encoding (one or two characters may
    always be damaged). Raises
    UnreadableFileError for a file that is empty, packed otherwise than its name says, of another encoding, or no text.
    """
    try:
        with file.path.open() as packed:
            _check_packing(file, packed.read(16))
            packed.seek(0)
            with unpacked(file.path.name, packed) as stream:
                head = stream.read(HEADER_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableFileError(file.name, f"it cannot be read: {shown(error)}") from None
    if not head.strip(b" \t\r\n\x00\xef\xbb\xbf\xff\xfe"):
        raise UnreadableFileError(file.name, "it is empty")
    if not encoding.startswith("utf-16"):
        _check_zeros(file, head)
    decoder = codecs.getincrementaldecoder("utf-8-sig" if encoding == "utf-8" else encoding)("replace")
    text = decoder.decode(head)
    if strict and encoding == "utf-8":
        _check_utf8(file, text)
    return text.removeprefix("\ufeff").lstrip("\r\n")


def first_line(file: RawFile, encoding: str = "utf-8") -> str:
    """The first line that is not blank. Raises UnreadableFileError as ``head_text``, and for a line without end."""
    return _line(file, head_text(file, encoding))


def csv_header(
    file: RawFile,
    separator: str = ",",
    quote: str = '"',
    escape: str | None = None,
    *,
    encoding: str = "utf-8",
    multiline: bool = False,
    strict: bool = False,
) -> CsvHeader:
    """The header of a CSV file. A first line ``sep=;`` names the separator, and the header is the line after it.

    ``escape`` None: a quote inside quotes is doubled. Raises UnreadableFileError as ``head_text``, and for a header
    without end.
    """
    text = head_text(file, encoding, strict=strict)
    line = _line(file, text)
    if told := noted_separator(line):
        text = text[len(line) :].lstrip("\r\n")
        if not text.strip():
            raise UnreadableFileError(file.name, "it is empty")
        line = _line(file, text)
    if json_text := _JSON.match(line):
        array = "a JSON array: write one object a line (jq -c '.[]') and set format: json-lines"
        raise UnreadableFileError(
            file.name, f"it is {array if '[' in json_text[0] else 'JSON: set format: json-lines'}"
        )
    split_at = told or separator
    if len(split_at) > 1:
        return CsvHeader(tuple(line.split(split_at)), line, told)
    doubled = escape is None or escape == quote
    csv.field_size_limit(1 << 27)
    reader = csv.reader(
        io.StringIO(text if multiline else f"{line}\n", newline=""),
        delimiter=split_at,
        quotechar=quote or None,
        quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
        doublequote=doubled,
        escapechar=None if doubled else escape,
    )
    try:
        names = tuple(next(reader))
    except csv.Error as error:
        raise UnreadableFileError(file.name, f"its header cannot be read: {shown(error)}") from None
    if not multiline and quote and names and "\n" in names[-1]:
        raise UnreadableFileError(file.name, "a quote in its header is not closed; multiline: true reads line breaks")
    return CsvHeader(names, line, told)


def check_width(file: RawFile, names: Sequence[str]) -> None:
    """Raise UnreadableFileError for more than MOST_COLUMNS columns."""
    if len(names) > MOST_COLUMNS:
        raise UnreadableFileError(
            file.name,
            f"it has {len(names):,} columns, and at most {MOST_COLUMNS:,} are read: leave out what is not used",
        )


def _line(file: RawFile, text: str) -> str:
    end = _LINE_END.search(text)
    if end is None and len(text.encode(errors="replace")) >= HEADER_BYTES - 4:
        raise UnreadableFileError(file.name, "its first line has no end; this is not a text file of lines")
    return text[: end.start()] if end else text


def _check_packing(file: RawFile, start: bytes) -> None:
    if start.startswith(b"PAR1"):
        raise UnreadableFileError(file.name, "it is Parquet: set format: parquet")
    if why := packing_fault(file.path.name, start):
        raise UnreadableFileError(file.name, why)


def _check_zeros(file: RawFile, head: bytes) -> None:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UnreadableFileError(file.name, "it is UTF-16: set encoding: utf-16, or write it as UTF-8")
    sample = head[:8192]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if even + odd > len(sample) / 10:
        if min(even, odd) < max(even, odd) / 10:
            kind = "utf-16-le" if odd > even else "utf-16-be"
            raise UnreadableFileError(file.name, f"it is UTF-16: set encoding: {kind}, or write it as UTF-8")
        raise UnreadableFileError(file.name, "it is not text")


def _check_utf8(file: RawFile, text: str) -> None:
    broken = text.count("\ufffd")
    # One or two may be damaged characters of a file in UTF-8: their fields become null, and are counted.
    if broken >= FEWEST_BROKEN and broken > sum(c > "\x7f" for c in text) / 2:
        line = _LINE_END.split(text[: text.index("\ufffd") + 20])[-1]
        raise UnreadableFileError(
            file.name, f"it is not UTF-8 ({shown(line[-60:])}): set encoding: cp1252, or latin-1, or write it as UTF-8"
        )
