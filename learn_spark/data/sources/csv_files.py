"""CSV files with Spark without losing a line: a broken line is kept and marked as malformed."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING

from learn_spark.core.storage.path import StoragePath
from learn_spark.data.files.conventions import SEPARATOR_NOTE, SEPARATOR_NOTE_RECORD, partition_values
from learn_spark.data.sources.column_names import distinct_names, quoted
from learn_spark.data.sources.open_quotes import check_quotes_are_closed
from learn_spark.data.sources.source import RawFile, UnreadableFileError
from learn_spark.data.sources.text_head import check_width, csv_header, head_text
from learn_spark.data.sources.text_lines import as_letters, read_lines, spark_path, with_source_file
from learn_spark.data.sources.wording import shown_names

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

_BROKEN = "_broken_line"
# A line with more separators is malformed; more columns would need the memory for them in every task.
MOST_COLUMNS = 200_000
_JAVA_NAMES = {
    "utf-8": "UTF-8",
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16LE",
    "utf-16-be": "UTF-16BE",
    "cp1252": "ISO-8859-1",
    "latin-1": "ISO-8859-1",
}
OPEN_QUOTE = (
    "a quote is not closed on this line; multiline: true reads line breaks inside quotes, and quote: '' reads quotes "
    "as text"
)


def read_csv(
    spark: SparkSession,
    folder: StoragePath,
    files: Sequence[RawFile],
    *,
    separator: str = ",",
    header: Sequence[str] | None = None,
    needed: Sequence[str] = (),
    mapped: Sequence[str] = (),
    quote: str = '"',
    escape: str | None = None,
    encoding: str = "utf-8",
    multiline: bool = False,
    strict: bool = False,
) -> DataFrame:
    """CSV by RFC 4180 (a quote inside quotes is doubled, or follows ``escape``), plain or packed by gzip or bzip2.

    ``quote`` "" turns quoting off. Line breaks inside quotes belong to the field only with ``multiline``; without it
    both halves of such a row are malformed. ``header`` names the fields of files without a header line. Lines that
    repeat the header are no rows. Files with different headers are matched by name, not by position: a field that a
    file does not have is null. Names that Spark cannot tell apart get others (``distinct_names``, with ``mapped``).
    With ``strict``, a file that is not UTF-8 is not read as such.

    Raises UnreadableFileError where a file's header lacks a ``needed`` field, and as ``csv_header``.
    """
    described = CsvFormat(separator, quote, escape, encoding, multiline)
    groups: dict[tuple[tuple[str, ...], str | None, str | None], list[RawFile]] = defaultdict(list)
    for file in files:
        if header is not None:
            head_text(file, encoding)
            groups[tuple(header), None, None].append(file)
            continue
        found = csv_header(file, separator, quote, escape, encoding=encoding, multiline=multiline, strict=strict)
        if missing := [name for name in needed if name not in found.names and name not in partition_values(file.name)]:
            raise UnreadableFileError(
                file.name, f"no column {shown_names(missing)} in its header ({shown_names(found.names)})"
            )
        check_width(file, found.names)
        if multiline:
            check_quotes_are_closed(file, found.separator or separator, quote, escape, encoding)
        groups[found.names, None if multiline else found.line, found.separator].append(file)
    frames = []
    for (names, line, noted), group in groups.items():
        try:
            fields = distinct_names(names, mapped or needed)
        except ValueError as error:
            raise UnreadableFileError(group[0].name, str(error)) from None
        of_group = replace(described, separator=noted or separator)
        if multiline:
            rows = _records(
                spark, folder, group, of_group, names, without_header=header is None, noted=noted is not None
            )
        else:
            rows = _parsed_lines(
                read_lines(spark, folder, group, encoding), of_group, len(names), line, noted is not None
            )
        frames.append(_fields_and_row(rows, fields))
    return reduce(lambda a, b: a.unionByName(b, allowMissingColumns=True), frames)


@dataclass(frozen=True)
class CsvFormat:
    """How the fields of a CSV file are written."""

    separator: str
    quote: str
    escape: str | None
    encoding: str
    multiline: bool

    def options(self) -> dict[str, str]:
        """Spark's options."""
        return {
            "header": "false",
            "sep": self.separator,
            "quote": self.quote,
            "escape": self.escape or self.quote or "\\",
            "mode": "PERMISSIVE",
            "columnNameOfCorruptRecord": _BROKEN,
            # With column pruning, Spark would miss that a line is broken in another column.
            "columnPruning": "false",
            # A field longer than the default of a million characters would fail the whole job.
            "maxCharsPerColumn": "-1",
            "maxColumns": str(MOST_COLUMNS),
        }


def _parsed_lines(lines: DataFrame, described: CsvFormat, width: int, header: str | None, noted: bool) -> DataFrame:
    """``c0``, ``c1``, ..., the broken line, why it is broken, source_file. Lines equal to the header are left out,
    and the note ``sep=;`` of files that begin with it (``noted``)."""
    from pyspark.sql import functions as F

    if header is not None:
        lines = lines.where(F.col("value") != header)
    if noted:
        lines = lines.where(~F.col("value").rlike(SEPARATOR_NOTE))
    schema = ", ".join(f"`{name}` string" for name in (*(f"c{n}" for n in range(width)), _BROKEN))
    value = F.col("value")
    separators = F.length(value) - F.length(F.replace(value, F.lit(described.separator), F.lit("")))
    too_many = separators >= (MOST_COLUMNS - 1) * len(described.separator)
    cut = _cut_quote(value, described) if described.quote else F.lit(False)
    parsed = lines.withColumns({"_cut": cut, "_row": F.from_csv(F.when(~too_many, value), schema, described.options())})
    broken = F.when(F.col("_cut") | F.col("_row").isNull(), value).otherwise(F.col(f"_row.{_BROKEN}"))
    why = F.when(F.col("_cut"), F.lit(OPEN_QUOTE))
    rows = parsed.select("_row.*", broken.alias("_line"), why.alias("_why"), "source_file")
    return rows.drop(_BROKEN).withColumnRenamed("_line", _BROKEN)


def _cut_quote(line: Column, described: CsvFormat) -> Column:
    """Whether a quoted field begins on this line and ends on a later one, or the other way round: an odd number of
    quotes, one of them at the edge of a field. A stray quote inside a field (5" tall) is text.
    """
    from pyspark.sql import functions as F

    if described.escape and described.escape != described.quote:
        line = F.regexp_replace(line, f"{re.escape(described.escape)}.", "")
    quotes = F.length(line) - F.length(F.replace(line, F.lit(described.quote), F.lit("")))
    quote, separator = re.escape(described.quote), re.escape(described.separator)
    return (quotes % 2 == 1) & line.rlike(f"(?:^|{separator}){quote}|{quote}(?:{separator}|$)")


def _records(
    spark: SparkSession,
    folder: StoragePath,
    files: Sequence[RawFile],
    described: CsvFormat,
    names: Sequence[str],
    *,
    without_header: bool,
    noted: bool,
) -> DataFrame:
    """As ``_parsed_lines``, of records that may have line breaks. Records equal to the header are left out."""
    from pyspark.sql import functions as F

    reader = spark.read.options(**described.options(), encoding=_JAVA_NAMES[described.encoding], multiLine=True)
    columns = [f"c{n}" for n in range(len(names))]
    read = reader.schema(", ".join(f"`{name}` string" for name in (*columns, _BROKEN))).csv(
        [spark_path(file.path) for file in files]
    )
    rows = with_source_file(read, folder).withColumn("_why", F.lit(None).cast("string"))
    rows = rows.withColumns({name: as_letters(F.col(name), described.encoding) for name in (*columns, _BROKEN)})
    rows = rows.withColumn("c0", F.regexp_replace("c0", "^\ufeff", ""))
    if without_header:
        same = [F.coalesce(F.col(c), F.lit("")) == name for c, name in zip(columns, names, strict=True)]
        is_header = reduce(lambda a, b: a & b, same, F.col(_BROKEN).isNull())
        rows = rows.where(~is_header)
    if noted:
        note = F.coalesce(F.col(_BROKEN), F.concat_ws(described.separator, *columns))
        rows = rows.where(~note.rlike(SEPARATOR_NOTE_RECORD))
    return rows


def _fields_and_row(rows: DataFrame, fields: Sequence[str]) -> DataFrame:
    """``f_<field>`` for every field, blank as null, and the row as JSON: its fields, or the line where it is broken."""
    from pyspark.sql import functions as F

    malformed = F.col(_BROKEN).isNotNull()
    # As SQL text: a column object for each of thousands of fields costs minutes.
    row_json = F.expr(f"to_json({_struct({name: f'c{n}' for n, name in enumerate(fields)})})")
    values = F.expr(_struct({f"f_{name}": f"nullif(trim(c{n}), '')" for n, name in enumerate(fields)}))
    line = F.to_json(F.struct(F.col(_BROKEN).alias("line"), F.col("_why").alias("why")))
    typed = rows.select(
        values.alias("_values"),
        F.when(malformed, line).otherwise(row_json).alias("raw"),
        malformed.alias("malformed"),
        "source_file",
    )
    return typed.select("_values.*", "raw", "malformed", "source_file")


def _struct(fields: Mapping[str, str]) -> str:
    """SQL of a struct; ``fields`` are the expressions by name."""
    return f"struct({', '.join(f'{sql} as {quoted(name)}' for name, sql in fields.items())})"
