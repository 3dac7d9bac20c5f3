"""Reading text files with Spark without losing a line: a broken line is kept and marked as malformed.

Every reader gives the file's fields as string columns named ``f_<field>``, and ROW_COLUMNS.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from learn_spark.core.storage.path import StoragePath, storage_path
from learn_spark.data.files.packing import unpacked
from learn_spark.data.sources.source import ROW_COLUMNS, RawFile
from learn_spark.data.sources.text_head import head_text

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

# ISO-8859-1 differs from Windows-1252 in these, which it reads as control characters.
_CP1252 = {n: bytes([n]).decode("cp1252", "ignore") for n in range(0x80, 0xA0)}
_LINES_A_BATCH = 5_000
_CHARACTERS = 1 << 24  # of a batch of decoded lines, and of the longest line
_BYTES_A_REQUEST = 1 << 23


def spark_path(path: StoragePath) -> str:
    """A path for Spark with its glob characters escaped; Spark does not decode percent signs here."""
    return "".join(f"\\{c}" if c in "[]{}*?\\" else c for c in path.spark)


def with_source_file(frame: DataFrame, folder: StoragePath) -> DataFrame:
    """The frame with ``source_file``, the row's file relative to ``folder``. Call it right after reading."""
    from pyspark.sql import functions as F

    # A plus sign is literal in a path, but url_decode would turn it into a blank.
    path = F.url_decode(F.regexp_replace(F.col("_metadata.file_path"), r"\+", "%2B"))
    return frame.withColumn("source_file", F.substring(path, len(f"{storage_path(folder).spark}/") + 1, 1 << 20))


def read_lines(
    spark: SparkSession, folder: StoragePath, files: Sequence[RawFile], encoding: str = "utf-8"
) -> DataFrame:
    """The lines of the files that are not blank, in ``value``, and source_file.

    Lines end with a line feed, a carriage return or both. Bytes that the encoding does not have become U+FFFD.
    """
    from pyspark.sql import functions as F

    if encoding.startswith("utf-16"):
        # Spark ends a line at a byte, which may be half a character here. One task decodes a file from start to end.
        listed = spark.createDataFrame([(str(f.path), f.name) for f in files], "path string, name string")
        # The folder has what reaching the files needs.
        read = listed.repartition(min(len(files), 200)).mapInArrow(
            lambda batches: _decoded_lines(batches, encoding, folder), "value string, source_file string"
        )
    else:
        read = with_source_file(spark.read.text([spark_path(file.path) for file in files]), folder)
        if encoding == "utf-8":
            # Invalid UTF-8 would pass through Spark and fail in the first strict reader.
            read = read.withColumn("value", F.make_valid_utf8("value"))
        else:
            read = read.withColumn("value", as_letters(F.decode(F.col("value").cast("binary"), "ISO-8859-1"), encoding))
    return read.where(F.col("value").rlike(r"[^\x00-\x20]"))


def as_letters(latin: Column, encoding: str) -> Column:
    """Text of this encoding that was read as ISO-8859-1."""
    from pyspark.sql import functions as F

    if encoding != "cp1252":
        return latin
    letters = {chr(n): letter for n, letter in _CP1252.items() if letter}
    return F.translate(latin, "".join(letters), "".join(letters.values()))


def _decoded_lines(batches: Iterable[pa.RecordBatch], encoding: str, folder: StoragePath) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for path, name in zip(batch["path"].to_pylist(), batch["name"].to_pylist(), strict=True):
            with (
                storage_path(path, getattr(folder, "s3", None)).open(_BYTES_A_REQUEST) as packed,
                io.TextIOWrapper(unpacked(path, packed), encoding, "replace", newline=None) as stream,
            ):
                while some := _next_lines(stream):
                    yield pa.RecordBatch.from_pydict({"value": some, "source_file": [name] * len(some)})


def _next_lines(stream: io.TextIOBase) -> list[str]:
    """The next lines, of at most some _CHARACTERS together. A longer line is several: each is refused as malformed."""
    lines: list[str] = []
    left = _CHARACTERS
    while left > 0 and len(lines) < _LINES_A_BATCH and (line := stream.readline(_CHARACTERS)):
        left -= len(line)
        lines.append(line.rstrip("\n").removeprefix("\ufeff"))
    return lines


def read_json_lines(
    spark: SparkSession, folder: StoragePath, files: Sequence[RawFile], fields: Mapping[str, str], *, lines: Any = None
) -> DataFrame:
    """JSON objects, one per line, plain or gzip. ``fields`` maps a field's name to a path (``$.title``) and type.

    A value is ``(path)`` for a string, or ``(path) as array<string>``; a missing value or one of another type is null.
    ``lines`` converts the frame of raw lines (``value``) to one whose ``value`` is JSON, for formats that are almost
    JSON.
    """
    from pyspark.sql import functions as F

    for file in files:
        head_text(file)
    read = read_lines(spark, folder, files).withColumn("line", F.col("value"))
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
