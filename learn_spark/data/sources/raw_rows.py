"""The rows of described files: every column, the row as JSON, whether its line is broken, its file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from learn_spark.core.settings.source import FilesSettings
from learn_spark.core.storage.path import StoragePath
from learn_spark.data.files.conventions import NO_PARTITION, partition_values
from learn_spark.data.sources.column_names import distinct_names, is_plain, quoted
from learn_spark.data.sources.corrupt_files import naming_corrupt_files
from learn_spark.data.sources.csv_files import read_csv
from learn_spark.data.sources.delta_tables import read_table
from learn_spark.data.sources.parquet_files import read_parquet
from learn_spark.data.sources.source import RawFile, UnreadableFileError, check_names
from learn_spark.data.sources.text_head import head_text
from learn_spark.data.sources.text_lines import read_lines

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

_BROKEN = "_broken_line"


def raw_rows(spark: SparkSession, folder: StoragePath, files: Sequence[RawFile], described: FilesSettings) -> DataFrame:
    """Every column of the files as ``f_<name>`` (Parquet and Delta keep their types), and ROW_COLUMNS.

    Folders like ``dt=2024-03-01`` are columns too, unless the files have a column of that name. Raises
    UnreadableFileError.
    """
    check_names(files)
    mapped = [*described.columns.values(), *([described.where] if described.where else [])]
    plain = [name for name in described.columns.values() if is_plain(name)]
    if described.format == "csv":
        rows = read_csv(
            spark,
            folder,
            files,
            separator=described.separator,
            quote=described.quote,
            escape=described.escape,
            encoding=described.encoding,
            needed=plain,
            mapped=mapped,
            multiline=described.multiline,
            strict=True,
        )
    elif described.format == "json-lines":
        rows = _json_rows(spark, folder, files, described.encoding, mapped)
    else:
        rows = _typed_rows(spark, folder, files, described, mapped)
    if described.format != "delta":
        rows = _with_partitions(rows, files)
    if described.format == "json-lines":
        rows = _with_missing(rows, plain)
    return rows


def _json_rows(
    spark: SparkSession, folder: StoragePath, files: Sequence[RawFile], encoding: str, mapped: Sequence[str]
) -> DataFrame:
    """One JSON object a line. Numbers are text; a field that is an object in one line and text in another is text."""
    from pyspark.sql import functions as F

    for file in files:
        start = head_text(file, encoding, strict=True).lstrip()[:1]
        if start == "[":
            raise UnreadableFileError(file.name, "it is a JSON array; JSON lines have one object a line (jq -c '.[]')")
    lines = read_lines(spark, folder, files, encoding)
    schema = _json_schema(spark, lines, files, mapped)
    options = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": _BROKEN}
    parsed = lines.withColumn("_row", F.from_json("value", schema, options))
    # Spark reads the first object of a line and passes over what follows it: an array must have this object alone.
    alone = F.expr("try_variant_get(try_parse_json(concat('[', value, ']')), '$[0]', 'variant') is not null")
    second = F.expr("try_variant_get(try_parse_json(concat('[', value, ']')), '$[1]', 'variant') is not null")
    malformed = F.col("_row").isNull() | F.col(f"_row.{_BROKEN}").isNotNull() | ~alone | second
    fields = [name for name in schema.names if name != _BROKEN]
    return parsed.select(
        *[F.col(f"_row.{quoted(name)}").alias(f"f_{name}") for name in fields],
        F.when(malformed, F.to_json(F.struct(F.col("value").alias("line")))).otherwise(F.col("value")).alias("raw"),
        malformed.alias("malformed"),
        "source_file",
    )


def _json_schema(spark: SparkSession, lines: DataFrame, files: Sequence[RawFile], mapped: Sequence[str]) -> StructType:
    """The fields of all lines, and the broken line."""
    from pyspark.sql import DataFrame
    from pyspark.sql.types import StringType, StructField, StructType

    options: dict[str, bool | str] = {
        "primitivesAsString": True,
        "mode": "PERMISSIVE",
        "columnNameOfCorruptRecord": _BROKEN,
    }
    encoders = spark._jvm.org.apache.spark.sql.Encoders  # type: ignore[union-attr]
    # Python's reader takes files or an RDD of Python; Java's takes the lines.
    texts = getattr(lines.select("value")._jdf, "as")(encoders.STRING())
    with naming_corrupt_files(files):
        found = DataFrame(spark.read.options(**options)._jreader.json(texts), spark).schema
    every = {field.name: field for field in found if field.name != _BROKEN}
    names = list(every)
    try:
        distinct = distinct_names(names, mapped)
    except ValueError as error:
        raise UnreadableFileError(files[0].name, f"in it or in another file of the pattern, {error}") from None
    kept = [every[name] for name, new in zip(names, distinct, strict=True) if name == new]
    return StructType([*kept, StructField(_BROKEN, StringType())])


def _typed_rows(
    spark: SparkSession, folder: StoragePath, files: Sequence[RawFile], described: FilesSettings, mapped: Sequence[str]
) -> DataFrame:
    from pyspark.sql import functions as F

    if described.format == "parquet":
        rows = read_parquet(spark, folder, files, mapped)
    else:
        (table,) = files
        rows = read_table(spark, table).withColumn("source_file", F.lit(table.name))
    fields = [name for name in rows.columns if name != "source_file"]
    return rows.select(
        *[F.col(quoted(name)).alias(f"f_{name}") for name in fields],
        F.to_json(F.struct(*[F.col(quoted(name)) for name in fields])).alias("raw"),
        F.lit(False).alias("malformed"),
        "source_file",
    )


def _with_partitions(rows: DataFrame, files: Sequence[RawFile]) -> DataFrame:
    from pyspark.sql import functions as F

    present = {name.casefold() for name in rows.columns}
    for key in dict.fromkeys(key for file in files for key in partition_values(file.name)):
        if f"f_{key}".casefold() not in present and key.isidentifier():
            value = F.url_decode(F.regexp_extract("source_file", f"(?:^|/){key}=([^/]*)/", 1))
            rows = rows.withColumn(f"f_{key}", F.when(~value.isin("", NO_PARTITION), value))
    return rows


def _with_missing(rows: DataFrame, plain: Sequence[str]) -> DataFrame:
    """A field may be missing from every line of a delivery, as from any single line."""
    from pyspark.sql import functions as F

    present = {name.casefold() for name in rows.columns}
    missing = [name for name in dict.fromkeys(plain) if f"f_{name}".casefold() not in present]
    return rows.withColumns({f"f_{name}": F.lit(None).cast("string") for name in missing}) if missing else rows
