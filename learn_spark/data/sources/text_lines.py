"""Reading text files with Spark without losing a line: a broken line is kept and marked as malformed.

Every reader gives the file's fields as string columns named ``f_<field>``, and ROW_COLUMNS.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learn_spark.data.sources.source import ROW_COLUMNS, RawFile, UnreadableFileError

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

HEADER_BYTES = 1 << 20
_BROKEN = "_broken_line"


def first_line(file: RawFile, encoding: str = "utf-8-sig") -> str:
    """The first line, gzip or plain. Raises UnreadableFileError for an empty file, a broken archive or a line without
    end.
    """
    opener: Any = gzip.open if file.path.suffix == ".gz" else open
    try:
        with opener(file.path, "rb") as stream:
            line: bytes = stream.readline(HEADER_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableFileError(file.name, f"it cannot be read: {error}") from None
    if not line.strip():
        raise UnreadableFileError(file.name, "it is empty")
    if len(line) == HEADER_BYTES:
        raise UnreadableFileError(file.name, "its first line has no end; this is not a text file of lines")
    return line.decode(encoding, "replace").rstrip("\r\n")


def spark_path(path: Path) -> str:
    """A path for Spark with its glob characters escaped; Spark does not decode percent signs here."""
    escaped = "".join(f"\\{c}" if c in "[]{}*?\\" else c for c in str(path.resolve()))
    return f"file:{escaped}"


def with_source_file(frame: DataFrame, folder: Path) -> DataFrame:
    """The frame with ``source_file``, the row's file relative to ``folder``. Call it right after reading."""
    from pyspark.sql import functions as F

    # A plus sign is literal in a path, but url_decode would turn it into a blank.
    path = F.url_decode(F.regexp_replace(F.col("_metadata.file_path"), r"\+", "%2B"))
    return frame.withColumn("source_file", F.substring(path, len(f"file:{folder.resolve()}/") + 1, 1 << 20))


def read_csv(
    spark: SparkSession,
    folder: Path,
    files: Sequence[RawFile],
    *,
    separator: str = ",",
    header: Sequence[str] | None = None,
    needed: Sequence[str] = (),
    quote: str = '"',
    encoding: str = "UTF-8",
    multiline: bool = False,
) -> DataFrame:
    """CSV by RFC 4180 (a quote inside quotes is doubled), plain or gzip; ``quote`` "" turns quoting off.

    Line breaks inside quotes belong to the field only with ``multiline``; without it such a line is malformed.
    ``header`` names the fields of files without a header line. Files with different headers are matched by name, not by
    position: a field that a file does not have is null. Raises UnreadableFileError where a file's header lacks a
    ``needed`` field.
    """
    groups: dict[tuple[str, ...], list[RawFile]] = defaultdict(list)
    for file in files:
        fields = tuple(header) if header is not None else _header(file, separator, quote)
        missing = [name for name in needed if name not in fields]
        if missing:
            raise UnreadableFileError(file.name, f"no column {', '.join(missing)} in its header ({', '.join(fields)})")
        groups[fields].append(file)
    frames = []
    for fields, group in groups.items():
        reader = spark.read.options(
            header=header is None,
            sep=separator,
            quote=quote,
            escape=quote or "\\",
            encoding=encoding,
            multiLine=multiline,
            mode="PERMISSIVE",
            columnNameOfCorruptRecord=_BROKEN,
            # With column pruning, Spark would miss that a line is broken in another column.
            columnPruning=False,
            # A field longer than the default of a million characters would fail the whole job.
            maxCharsPerColumn=-1,
        )
        rows = reader.schema(_strings([*fields, _BROKEN])).csv([spark_path(file.path) for file in group])
        frames.append(_fields_and_row(with_source_file(rows, folder), fields))
    return reduce(lambda a, b: a.unionByName(b, allowMissingColumns=True), frames)


def _header(file: RawFile, separator: str, quote: str) -> tuple[str, ...]:
    line = first_line(file)
    if len(separator) == 1:
        return tuple(
            next(
                csv.reader(
                    io.StringIO(line), delimiter=separator, quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
                )
            )
        )
    return tuple(line.split(separator))


def _strings(names: Sequence[str]) -> Any:
    from pyspark.sql.types import StringType, StructField, StructType

    return StructType([StructField(name, StringType()) for name in names])


def _fields_and_row(frame: DataFrame, fields: Sequence[str]) -> DataFrame:
    """``f_<field>`` for every field, blank as null, and the row as JSON: its fields, or the line where it is broken."""
    from pyspark.sql import functions as F

    malformed = F.col(_BROKEN).isNotNull()
    row_json = F.to_json(F.struct(*[F.col(f"`{name}`") for name in fields]))
    line = F.to_json(F.struct(F.col(_BROKEN).alias("line")))
    return frame.select(
        *[blank_as_null(F.col(f"`{name}`")).alias(f"f_{name}") for name in fields],
        F.when(malformed, line).otherwise(row_json).alias("raw"),
        malformed.alias("malformed"),
        "source_file",
    )


def read_json_lines(
    spark: SparkSession, folder: Path, files: Sequence[RawFile], fields: Mapping[str, str], *, lines: Any = None
) -> DataFrame:
    """JSON objects, one per line, plain or gzip. ``fields`` maps a field's name to a path (``$.title``) and type.

    A value is ``(path)`` for a string, or ``(path) as array<string>``; a missing value or one of another type is null.
    ``lines`` converts the frame of raw lines (``value``) to one whose ``value`` is JSON, for formats that are almost
    JSON.
    """
    from pyspark.sql import functions as F

    for file in files:
        first_line(file)
    read = with_source_file(spark.read.text([spark_path(file.path) for file in files]), folder)
    # Invalid UTF-8 would pass through Spark and fail in the first strict reader.
    read = read.withColumn("value", F.make_valid_utf8("value"))
    read = read.withColumn("line", F.col("value")).where(F.trim("line") != "")
    if lines is not None:
        read = lines(read)
    parsed = read.withColumn("row", F.expr("try_parse_json(value)"))
    malformed = F.coalesce(F.expr("schema_of_variant(row) not like 'OBJECT%'"), F.lit(True))
    columns = []
    for name, described in fields.items():
        path, _, kind = described.partition(" as ")
        columns.append(F.expr(f"try_variant_get(row, '{path}', '{kind or 'string'}')").alias(f"f_{name}"))
    line_json = F.to_json(F.struct("line"))
    return parsed.select(
        *columns,
        F.when(malformed, line_json).otherwise(F.col("value")).alias("raw"),
        malformed.alias("malformed"),
        "source_file",
    )


def shape(frame: DataFrame, names: Sequence[str], columns: Mapping[str, Column]) -> DataFrame:
    """``names`` as trimmed strings (blank as null; null where ``columns`` has none), and ROW_COLUMNS."""
    from pyspark.sql import functions as F

    nothing = F.lit(None).cast("string")
    return frame.select(
        *[
            blank_as_null(columns[name].cast("string")).alias(name) if name in columns else nothing.alias(name)
            for name in names
        ],
        *ROW_COLUMNS,
    )


def blank_as_null(column: Column) -> Column:
    """The trimmed text; null where it is blank."""
    from pyspark.sql import functions as F

    trimmed = F.trim(column)
    return F.when(trimmed != "", trimmed)
