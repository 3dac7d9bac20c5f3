"""Text with one JSON object a row as columns, whatever brought the text: lines of files, or messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from learn_spark.data.sources.column_names import distinct_names, quoted
from learn_spark.data.sources.corrupt_files import naming_corrupt_files
from learn_spark.data.sources.nesting import within_depth
from learn_spark.data.sources.source import RawFile, UnreadableFileError

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.types import StructType

_BROKEN = "_broken_line"
_SHALLOW = "_shallow"


def json_rows(
    spark: SparkSession,
    texts: DataFrame,
    files: Sequence[RawFile],
    mapped: Sequence[str],
    *,
    raw: Callable[[], Column],
    malformed_raw: Callable[[], Column],
    others: Sequence[str] = (),
) -> DataFrame:
    """``f_<field>`` as text for every field of the objects in ``value``, and ROW_COLUMNS.

    A text that is nested deeper than nesting.DEEPEST is malformed. Numbers are text; a field that is an object in one
    row and text in another is text. ``raw`` and ``malformed_raw`` give the raw row from the columns of ``texts``, which
    has source_file. ``others`` are columns of ``texts`` that are fields too, unless the objects have a field of that
    name.
    """
    from pyspark.sql import functions as F

    texts = texts.withColumn(_SHALLOW, within_depth("value"))
    schema = _schema(spark, texts, files, mapped)
    options = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": _BROKEN}
    parsed = texts.withColumn("_row", F.from_json(_SHALLOW, schema, options))
    # Spark reads the first object of a line and passes over what follows it: an array must have this object alone.
    alone = F.expr(f"try_variant_get(try_parse_json(concat('[', {_SHALLOW}, ']')), '$[0]', 'variant') is not null")
    second = F.expr(f"try_variant_get(try_parse_json(concat('[', {_SHALLOW}, ']')), '$[1]', 'variant') is not null")
    malformed = F.col("_row").isNull() | F.col(f"_row.{_BROKEN}").isNotNull() | ~alone | second
    malformed = F.coalesce(malformed, F.lit(True))
    fields = [name for name in schema.names if name != _BROKEN]
    present = {name.casefold() for name in fields}
    return parsed.select(
        *[F.col(f"_row.{quoted(name)}").alias(f"f_{name}") for name in fields],
        *[F.col(name).alias(f"f_{name}") for name in others if name not in present],
        F.when(malformed, malformed_raw()).otherwise(raw()).alias("raw"),
        malformed.alias("malformed"),
        "source_file",
    )


def _schema(spark: SparkSession, texts: DataFrame, files: Sequence[RawFile], mapped: Sequence[str]) -> StructType:
    """The fields of all objects, and the broken line."""
    from pyspark.sql import DataFrame
    from pyspark.sql.types import StringType, StructField, StructType

    options: dict[str, bool | str] = {
        "primitivesAsString": True,
        "mode": "PERMISSIVE",
        "columnNameOfCorruptRecord": _BROKEN,
    }
    encoders = spark._jvm.org.apache.spark.sql.Encoders  # type: ignore[union-attr]
    # Python's reader takes files or an RDD of Python; Java's takes the texts.
    values = getattr(texts.select(_SHALLOW).where(f"{_SHALLOW} is not null")._jdf, "as")(encoders.STRING())
    with naming_corrupt_files(files):
        found = DataFrame(spark.read.options(**options)._jreader.json(values), spark).schema
    every = {field.name: field for field in found if field.name != _BROKEN}
    names = list(every)
    try:
        distinct = distinct_names(names, mapped)
    except ValueError as error:
        raise UnreadableFileError(files[0].name, f"in it or in another file of the pattern, {error}") from None
    kept = [every[name] for name, new in zip(names, distinct, strict=True) if name == new]
    return StructType([*kept, StructField(_BROKEN, StringType())])
