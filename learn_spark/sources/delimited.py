"""Delimited text with a header line, read so that no line is lost: a broken one is kept and marked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from learn_spark.sources.location import LocationError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def read_delimited(spark: SparkSession, path: Path, separator: str, columns: dict[str, str]) -> DataFrame:
    """The named columns as strings, with ``raw`` (JSON) and ``malformed`` (another number of fields than the header).

    ``columns`` maps a header name to the wanted name; other columns in the file are passed over.
    Raises LocationError where the header lacks one of them.
    """
    from pyspark.sql import functions as F

    with path.open("rb") as file:
        header_line = file.readline().decode("utf-8-sig", "replace").rstrip("\r\n")
    header = header_line.split(separator)
    missing = [name for name in columns if name not in header]
    if missing:
        raise LocationError(f"{path}: no column {', '.join(missing)} in its header ({', '.join(header)})")
    lines = spark.read.option("wholetext", "false").text(f"file:{path.resolve()}").withColumnRenamed("value", "line")
    lines = lines.where(F.regexp_replace("line", "^\ufeff|\r$", "") != header_line).where(F.trim("line") != "")
    fields = F.split(F.regexp_replace("line", "\r$", ""), re.escape(separator), -1)
    split = lines.withColumn("fields", fields)
    malformed = F.size("fields") != len(header)

    def field(name: str) -> str:
        position = header.index(name)
        return f"nullif(trim(get(fields, {position})), '')"

    values = [F.expr(field(name)).alias(wanted) for name, wanted in columns.items()]
    as_json = F.to_json(F.struct(*[F.expr(f"get(fields, {i})").alias(n) for i, n in enumerate(header)]))
    raw = F.when(malformed, F.to_json(F.struct("line"))).otherwise(as_json)
    return split.select(*values, raw.alias("raw"), malformed.alias("malformed"))
