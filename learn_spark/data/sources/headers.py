"""Before a run, without Spark: whether the files have the columns that the settings name, and how many rows."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from learn_spark.core.settings.source import FilesSettings, FilesSourceSettings, SourceSettings
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.snapshot import Snapshot, SnapshotError, open_table
from learn_spark.data.files.conventions import partition_values
from learn_spark.data.files.packing import unpacked
from learn_spark.data.sources.column_names import distinct_names, is_plain
from learn_spark.data.sources.configured import find_described
from learn_spark.data.sources.delta_tables import Session
from learn_spark.data.sources.kafka import messages_of
from learn_spark.data.sources.parquet_files import schema_of
from learn_spark.data.sources.source import FileKind, RawFile, UnreadableFileError, check_names
from learn_spark.data.sources.text_head import check_width, csv_header, head_text
from learn_spark.data.sources.wording import shown_names

COUNTED_BYTES = 1 << 28  # of files whose lines are counted: about a second
_UNPACKED_BYTES = 1 << 31  # of packed files whose lines are counted: a megabyte may unpack to a gigabyte
_LOOKED_AT = 100  # lines of a JSON file; a field may be missing from any of them
# Words of Spark's SQL that are no columns where no parenthesis follows.
_WORDS = """and or not is null true false case when then else end in like rlike ilike regexp between exists distinct as
    string int integer bigint long smallint tinyint double float decimal boolean date timestamp timestamp_ntz
    timestamp_ltz binary interval year years month months week weeks day days hour hours minute minutes second seconds
    millisecond milliseconds microsecond microseconds div mod array map struct variant escape from for both leading
    trailing at zone time to e x current_date current_timestamp"""


@dataclass(frozen=True)
class Incoming:
    """The files of one table that a run would read, and their bytes. ``rows`` is the most that they can have: lines,
    or the number in the metadata; None where the format does not give it, where counting would take long (packed files
    may unpack to any size), or for lines of files at an address."""

    files: int
    size: int
    rows: int | None


def check_columns(settings: SourceSettings, folder: StoragePath, session: Session | None = None) -> list[str]:
    """What is wrong but can be skipped, one sentence each: unreadable files, and names in expressions without a column.

    Raises LocationError where there are no files, and UnreadableFileError for a file that lacks a column or cannot be
    read, unless ``source.unreadable`` is skip.
    """
    if not isinstance(settings, FilesSourceSettings):
        return []
    notes: list[str] = []
    for kind, described in _both(settings):
        known: set[str] = set()
        for file in find_described(folder, described, kind, session):
            try:
                check_names([file])
                columns = columns_of(file, described)
                if described.format not in ("json-lines", "kafka"):
                    _require(file, described, columns)
            except UnreadableFileError as error:
                if settings.unreadable == "stop":
                    raise
                notes.append(f"would be skipped: {error}")
                continue
            known |= {column.casefold() for column in columns}
        for field, sql in (*described.columns.items(), ("where", described.where or "")):
            # order.pieces is a field of the column order.
            named = {name: name.casefold() for name in names_in(sql)}
            strange = [name for name, key in named.items() if not known & {key, key.partition(".")[0]}]
            if known and strange and not (is_plain(sql) and described.format == "csv"):
                notes.append(f"source.{kind}: {field}: no file has a column {', '.join(strange)}")
    return notes


def _both(settings: FilesSourceSettings) -> list[tuple[FileKind, FilesSettings]]:
    return [("items", settings.items), ("events", settings.events)]


def columns_of(file: RawFile, described: FilesSettings) -> tuple[str, ...]:
    """The names of the columns; of JSON lines, those of the first lines. Raises UnreadableFileError."""
    if described.format == "csv":
        header = csv_header(
            file,
            described.separator,
            described.quote,
            described.escape,
            encoding=described.encoding,
            multiline=described.multiline,
            strict=True,
        )
        names = header.names
        try:
            distinct_names(names, [*described.columns.values(), described.where or ""])
        except ValueError as error:
            raise UnreadableFileError(file.name, str(error)) from None
        return (*names, *partition_values(file.name))
    if described.format == "kafka":
        return ()
    if described.format == "delta":
        return tuple(field.name for field in open_table(file.path).schema().fields)
    if described.format == "parquet":
        return (*(name for name, _ in schema_of(file, tuple(described.columns.values()))), *partition_values(file.name))
    fields: dict[str, None] = {}
    for line in head_text(file, described.encoding, strict=True).splitlines()[:_LOOKED_AT]:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # nested thousands deep
            continue
        fields |= dict.fromkeys(record if isinstance(record, dict) else ())
    return (*fields, *partition_values(file.name))


def _require(file: RawFile, described: FilesSettings, columns: Sequence[str]) -> None:
    exact = set(columns) if described.format == "csv" else {column.casefold() for column in columns}
    named = [name for name in described.columns.values() if is_plain(name)]
    missing = [name for name in named if (name if described.format == "csv" else name.casefold()) not in exact]
    if missing:
        raise UnreadableFileError(file.name, f"no column {shown_names(missing)}; it has {shown_names(columns)}")
    if described.format == "csv":
        check_width(file, columns)


def names_in(sql: str) -> list[str]:
    """The names of columns in an SQL expression, as far as they can be seen without Spark: none in quotes, of a
    function, of a type or after a dot."""
    if is_plain(sql):
        return [sql]
    plain = re.sub(r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.)*\"", " '' ", sql)
    quoted = re.findall(r"`([^`]+)`", plain)
    rest = re.sub(r"`[^`]+`", " 0 ", plain)
    parameters = {name for group in re.findall(r"(\w+|\([\w\s,]+\))\s*->", rest) for name in re.findall(r"\w+", group)}
    bare = re.findall(r"(?<![\w.])[A-Za-z_]\w*\b(?!\s*[(']|\s*\.\s*\w+\s*\()", rest)
    return list(dict.fromkeys([*quoted, *(n for n in bare if n.lower() not in _WORDS.split() and n not in parameters)]))


def incoming(files: Sequence[RawFile], kind: FileKind, settings: SourceSettings) -> Incoming:
    """How much a run would read of the given files of one kind."""
    chosen = [file for file in files if kind in file.kinds]
    size = sum(file.size for file in chosen)
    if not isinstance(settings, FilesSourceSettings):
        return Incoming(len(chosen), size, None)
    described = settings.items if kind == "items" else settings.events
    # Of files at an address only the heads are read.
    far = size > COUNTED_BYTES or any(not file.path.is_local for file in chosen)
    rows: int | None = None
    try:
        if described.format == "kafka":
            rows = sum(messages_of(file) for file in chosen)
        elif described.format == "delta":
            rows = sum(Snapshot.open(file.path).rows for file in chosen)
        elif described.format == "parquet":
            rows = sum(_parquet_rows(file.path) for file in chosen)
        elif not far:
            rows = _rows(chosen, header=described.format == "csv")
    except (OSError, EOFError, zlib.error, pa.ArrowException, SnapshotError):
        pass  # a file that cannot be read is named elsewhere
    return Incoming(len(chosen), size, rows)


def _parquet_rows(path: StoragePath) -> int:
    return int(pq.read_metadata(path.inner, filesystem=path.file_system).num_rows)


def _rows(files: Sequence[RawFile], *, header: bool) -> int | None:
    """Lines of the files, less a header each; None where they unpack to more than _UNPACKED_BYTES."""
    rows, left = 0, _UNPACKED_BYTES
    for file in files:
        lines, last = 0, b"\n"
        with file.path.open(1 << 22) as packed, unpacked(file.path.name, packed) as stream:
            while block := stream.read(1 << 22):
                lines += block.count(b"\n")
                last = block[-1:]
                if (left := left - len(block)) < 0:
                    return None
        rows += max(0, lines + (last != b"\n") - header)
    return rows
