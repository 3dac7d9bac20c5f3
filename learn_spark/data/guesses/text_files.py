"""CSV and JSON lines: encoding, separator, quotes, columns and first rows."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from learn_spark.data.files.conventions import noted_separator
from learn_spark.data.guesses.contents import SAMPLE_ROWS, Contents, Row, TextLayout, UnusableFileError

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1e]")
_SEPARATORS = (",", ";", "\t", "|", "^")
_SNIFFED_ROWS = 300
_SNIFFED_CHARACTERS = 1 << 18
_LEAST_CONSISTENT = 0.6
_DATA_IN_HEADER = re.compile(r"^\s*[+-]?\d+([.,]\d+)?\s*$|^\s*\d{4}-\d\d-\d\d|^\s*\d{1,2}[./]\d{1,2}[./]\d{4}")


def read_text(path: Path, name: str, head: bytes, whole: bool) -> Contents:
    """The contents of a text file by its first bytes. Raises UnusableFileError where it holds no table."""
    if not head.strip(b" \t\r\n\x00\xef\xbb\xbf\xff\xfe"):
        raise UnusableFileError("it is empty")
    encoding = encoding_of(head, whole)
    text = _decoded(head, encoding, whole)
    if len(_CONTROL.findall(text[:10_000])) > len(text[:10_000]) / 20:
        raise UnusableFileError("it is neither text nor Parquet")
    if not whole:  # the last line may be cut off
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1] or text
    start = text.lstrip()[:1]
    if start == "{":
        return _json_lines(path, name, text, encoding, whole)
    if start == "[":
        raise UnusableFileError("it is a JSON array; write one object a line (jq -c '.[]')")
    if start == "<":
        raise UnusableFileError("it is XML or HTML; export it as CSV")
    return _csv(path, name, text, encoding, whole)


def encoding_of(head: bytes, whole: bool) -> str:
    """ascii, utf-8, utf-16, utf-16-le, utf-16-be, cp1252 or latin-1. Raises UnusableFileError for other bytes."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    sample = head[:65_536]
    if b"\x00" in sample:
        odd, even = sample[1::2].count(0), sample[::2].count(0)
        if max(odd, even) > len(sample) / 5 and min(odd, even) < max(odd, even) / 10:
            return "utf-16-le" if odd > even else "utf-16-be"
        raise UnusableFileError("it is neither text nor Parquet")
    if head.isascii():
        return "ascii"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=whole)
        return "utf-8"
    except UnicodeDecodeError:
        undefined = set(b"\x81\x8d\x8f\x90\x9d")
        return "latin-1" if undefined & set(head) else "cp1252"


def _decoded(head: bytes, encoding: str, whole: bool) -> str:
    decoder = codecs.getincrementaldecoder("utf-8-sig" if encoding == "utf-8" else encoding)("replace")
    return decoder.decode(head, final=whole)


def _csv(path: Path, name: str, text: str, encoding: str, whole: bool) -> Contents:
    text = text.lstrip("\r\n")
    first = re.split(r"\r\n|\r|\n", text, maxsplit=1)[0]
    given = noted_separator(first)
    body = text[len(first) :].lstrip("\r\n") if given else text
    layout = replace(csv_layout(body, given), encoding=encoding, header_note=first.strip() if given else "")
    lines = [line for line in _rows_of(body, layout, SAMPLE_ROWS) if any(cell.strip() for cell in line)]
    header = [column.strip().removeprefix("\ufeff") for column in lines[0]]
    if any(_DATA_IN_HEADER.match(column) for column in header):
        raise UnusableFileError("its first line is data, not a header; add a line with the names of the columns")
    named = [column for column in header if column]
    if twice := sorted(column for column, times in Counter(c.casefold() for c in named).items() if times > 1):
        raise UnusableFileError(f"its header has {', '.join(twice)} twice; rename one of the columns")
    multiline = any("\n" in cell or "\r" in cell for line in lines for cell in line)
    rows = tuple(_row(header, line) for line in lines[1:] if len(line) == len(header))
    layout = replace(layout, multiline=multiline)
    return Contents(path, name, "csv", tuple(named), rows, layout, whole and len(lines) <= SAMPLE_ROWS)


def csv_layout(text: str, separator: str | None = None) -> TextLayout:
    """Separator, quote and escape with which most lines have as many fields as the first one.

    Raises UnusableFileError where no separator gives two columns.
    """
    whole, text = text, text[:_SNIFFED_CHARACTERS]
    best: tuple[float, int, TextLayout] | None = None
    for candidate in _SEPARATORS if separator is None else (separator,):
        if candidate not in text[: text.find("\n", 1)]:
            continue
        for quote in _quotes(whole, re.escape(candidate)):
            for escape in (quote, "\\") if quote and f"\\{quote}" in text else (quote,):
                layout = TextLayout(separator=candidate, quote=quote, escape=escape)
                widths = [len(line) for line in _rows_of(text, layout, _SNIFFED_ROWS) if line != [] and line != [""]]
                if not widths or widths[0] < 2:
                    continue
                score = (round(widths.count(widths[0]) / len(widths), 2), widths[0], layout)
                if best is None or score[:2] > best[:2]:
                    best = score
    if best is None or best[0] < _LEAST_CONSISTENT:
        raise UnusableFileError("it is no table: no separator gives lines of two or more columns")
    return best[2]


def _quotes(text: str, separator: str) -> list[str]:
    """The quotes that may be tried, the likeliest first; "" where quotes are characters like others (a 12" pan)."""
    text = re.sub(r"\r\n?", "\n", text)
    start, end = rf"(?:^|{separator})[ ]*", rf"[ ]*(?:{separator}|$)"
    # A backslash inside quotes may be an escape, or a character like others.
    double = re.search(rf'{start}"(?:[^"\\]|\\.|"")*"{end}|{start}"(?:[^"]|"")*"{end}', text, re.M)
    single = re.search(rf"{start}'(?:[^'\\\n]|\\.|'')*'{end}", text[:10_000], re.M)
    if '"' not in text or double:
        return ['"', "'"] if single else ['"']
    return ["'", '"', ""] if single else ["", '"']


def _rows_of(text: str, layout: TextLayout, limit: int) -> list[list[str]]:
    csv.field_size_limit(1 << 27)
    doubled = layout.escape == layout.quote  # both "" without quotes
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=layout.separator,
        quotechar=layout.quote or None,
        quoting=csv.QUOTE_MINIMAL if layout.quote else csv.QUOTE_NONE,
        doublequote=doubled,
        escapechar=None if doubled else layout.escape,
    )
    lines: list[list[str]] = []
    try:
        for line in reader:
            lines.append(line)
            if len(lines) > limit:
                break
    except csv.Error as error:
        if not lines:
            raise UnusableFileError(f"it cannot be read as CSV: {error}") from None
    return lines


def _row(header: list[str], line: list[str]) -> Row:
    return {column: cell.strip() or None for column, cell in zip(header, line, strict=True) if column}


def _json_lines(path: Path, name: str, text: str, encoding: str, whole: bool) -> Contents:
    rows: list[Row] = []
    lists: set[str] = set()
    columns: dict[str, None] = {}
    lines = [line for line in re.split(r"\r?\n", text) if line.strip()]
    for line in lines[: SAMPLE_ROWS + 1]:
        try:
            record = json.loads(line, parse_int=str, parse_float=str)
        except (ValueError, RecursionError):  # nested thousands deep
            continue
        if isinstance(record, dict):
            flat = flattened(record, lists)
            columns |= dict.fromkeys(flat)
            rows.append(flat)
    if not rows:
        raise UnusableFileError("it is JSON, but not one object a line; write it as JSON lines (jq -c .)")
    layout = TextLayout(encoding=encoding)
    return Contents(
        path,
        name,
        "json-lines",
        tuple(columns),
        tuple(rows),
        layout,
        whole and len(lines) <= SAMPLE_ROWS,
        frozenset(lists),
    )


def flattened(record: dict[str, Any], lists: set[str]) -> dict[str, str | None]:
    """A record with every value as text. Lists are joined, and named in ``lists``; a field of an object is
    ``object.field``; what is nested deeper is left out.
    """
    flat: dict[str, str | None] = {}
    for key, value in record.items():
        if isinstance(value, dict):
            inner = {k: v for k, v in value.items() if not isinstance(v, dict | list)}
            flat |= {f"{key}.{k}": as_text(v) for k, v in inner.items()}
        elif isinstance(value, list):
            if all(isinstance(one, str) for one in value):
                lists.add(key)
                flat[key] = ", ".join(value) or None
        else:
            flat[key] = as_text(value)
    return flat


def as_text(value: Any) -> str | None:
    """A plain value as Spark casts it to text; blank text is null."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).strip() or None
