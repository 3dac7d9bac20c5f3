"""The rows of described files: every column, the row as JSON, whether its line is broken, its file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from learn_spark.core.settings.source import FilesSettings
from learn_spark.core.storage.path import StoragePath
from learn_spark.data.files.conventions import NO_PARTITION, partition_values
from learn_spark.data.sources.column_names import is_plain, quoted
from learn_spark.data.sources.csv_files import read_csv
from learn_spark.data.sources.delta_tables import read_table
from learn_spark.data.sources.json_rows import json_rows
from learn_spark.data.sources.kafka import read_kafka
from learn_spark.data.sources.parquet_files import read_parquet
from learn_spark.data.sources.source import RawFile, UnreadableFileError, check_names
from learn_spark.data.sources.text_head import head_text
from learn_spark.data.sources.text_lines import read_lines

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


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
    elif described.format == "kafka":
        rows = read_kafka(spark, files, described, mapped)
    else:
        rows = _typed_rows(spark, folder, files, described, mapped)
    if described.format not in ("delta", "kafka"):
        rows = _with_partitions(rows, files)
    if described.format in ("json-lines", "kafka"):
        rows = _with_missing(rows, plain)
    return rows


def _json_rows(
    spark: SparkSession, folder: StoragePath, files: Sequence[RawFile], encoding: str, mapped: Sequence[str]
) -> DataFrame:
    """One JSON object a line."""
    from pyspark.sql import functions as F

    for file in files:
        head = head_text(file, encoding, strict=True).lstrip()
        if head[:1] == "[":
            raise UnreadableFileError(file.name, "it is a JSON array; JSON lines have one object a line (jq -c '.[]')")
        if re.match(r"\{\s*[\r\n]", head):
            raise UnreadableFileError(
                file.name, "its first object has several lines; JSON lines have one object a line (jq -c .)"
            )
    return json_rows(
        spark,
        read_lines(spark, folder, files, encoding),
        files,
        mapped,
        raw=lambda: F.col("value"),
        malformed_raw=lambda: F.to_json(F.struct(F.col("value").alias("line"))),
    )


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
    # order.pieces is a field of the object order.
    absent = [name for name in dict.fromkeys(plain) if f"f_{name.partition('.')[0]}".casefold() not in present]
    missing = [name for name in absent if f"f_{name}".casefold() not in present]
    return rows.withColumns({f"f_{name}": F.lit(None).cast("string") for name in missing}) if missing else rows
