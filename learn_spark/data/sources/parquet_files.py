"""Parquet files of several schemas: each group of equal files is read by its own schema, and then all are one frame."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from functools import reduce
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from learn_spark.core.storage.path import StoragePath
from learn_spark.data.sources.column_names import quoted
from learn_spark.data.sources.source import RawFile, UnreadableFileError
from learn_spark.data.sources.text_lines import spark_path, with_source_file
from learn_spark.data.sources.typed_rows import id_text
from learn_spark.data.sources.wording import shown, shown_names

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.types import DataType

_PLAIN = {
    pa.bool_(): "boolean",
    pa.int8(): "tinyint",
    pa.int16(): "smallint",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.uint8(): "smallint",
    pa.uint16(): "int",
    pa.uint32(): "bigint",
    pa.uint64(): "decimal(20,0)",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.string(): "string",
    pa.large_string(): "string",
    pa.binary(): "binary",
    pa.large_binary(): "binary",
    pa.date32(): "date",
    pa.date64(): "date",
}
_INTEGERS = {"tinyint", "smallint", "int", "bigint"}
_TIMES = {"timestamp", "timestamp_ntz", "date"}
_FOREIGN_CODECS = {"BROTLI", "LZO"}  # Spark has no code for them
# Nanoseconds, in a nested type too: void is a type of Spark that no column of a file has.
_NANOS, _NULL = "void", "null"


def read_parquet(
    spark: SparkSession, folder: StoragePath, files: Sequence[RawFile], mapped: Collection[str] = ()
) -> DataFrame:
    """All columns of the files with their types, and source_file.

    A column of several types is an integer where all are integers, a timestamp where all are times, else text. A column
    of type null, and one that a file lacks, is null there. Nanoseconds are timestamps, cut off to microseconds, in
    lists, structs and maps too. Columns of types that Spark does not have (times of day, half floats) are passed over.
    Raises UnreadableFileError, also where ``mapped`` names such a column.
    """
    groups: dict[tuple[tuple[str, str], ...], list[RawFile]] = defaultdict(list)
    for file in files:
        groups[schema_of(file, mapped)].append(file)
    kinds: dict[str, tuple[str, list[str]]] = {}
    for schema in groups:
        for name, kind in schema:
            kinds.setdefault(name.casefold(), (name, []))[1].append(kind)
    common = {key: (name, _common(seen)) for key, (name, seen) in kinds.items()}
    frames = []
    for schema, group in groups.items():
        # A column of type null is an int to Spark.
        fields = ", ".join(f"{quoted(name)} {_in_file(kind)}" for name, kind in schema)
        read = spark.read.schema(fields).parquet(*[spark_path(file.path) for file in group])
        rows = with_source_file(read, folder)
        columns = {name.casefold(): _typed(name, kind, common[name.casefold()][1]) for name, kind in schema}
        frames.append(
            rows.select(
                *[columns.get(key, _null(kind)).alias(name) for key, (name, kind) in common.items()], "source_file"
            )
        )
    return reduce(lambda a, b: a.unionByName(b), frames)


def schema_of(file: RawFile, mapped: Collection[str] = ()) -> tuple[tuple[str, str], ...]:
    """Name and type of each column that can be read. Raises UnreadableFileError."""
    try:
        with pq.ParquetFile(file.path.inner, filesystem=file.path.file_system) as parquet:
            arrow, physical, groups = parquet.schema_arrow, parquet.schema, parquet.num_row_groups
            codec = parquet.metadata.row_group(0).column(0).compression if groups and len(physical) else ""
            int96 = {
                physical.column(n).path for n in range(len(physical)) if physical.column(n).physical_type == "INT96"
            }
    except (OSError, pa.ArrowException) as error:
        raise UnreadableFileError(file.name, f"it cannot be read as Parquet: {shown(error)}") from None
    if codec in _FOREIGN_CODECS:
        raise UnreadableFileError(file.name, f"it is packed by {codec.lower()}: write it with zstd or snappy")
    columns: dict[str, tuple[str, str]] = {}
    for field in arrow:
        kind = "timestamp" if field.name in int96 else _kind(field.type)
        if kind is None:
            if field.name in mapped:
                raise UnreadableFileError(
                    file.name, f"its column {shown(field.name)} is {shown(field.type)}, which is not read: write text"
                )
            continue
        if other := columns.get(field.name.casefold()):
            both = shown_names([other[0], field.name])
            raise UnreadableFileError(file.name, f"its columns {both} have one name (case does not count): rename one")
        columns[field.name.casefold()] = (field.name, kind)
    if not columns:
        raise UnreadableFileError(file.name, "it has no column that can be read")
    return tuple(columns.values())


def _kind(arrow: pa.DataType) -> str | None:
    """Spark's type for values of this type, in it _NANOS, or null; None where Spark has no type for them."""
    if isinstance(arrow, pa.BaseExtensionType):
        return _kind(arrow.storage_type)
    if pa.types.is_dictionary(arrow):
        return _kind(arrow.value_type)
    if pa.types.is_null(arrow):
        return _NULL
    if pa.types.is_timestamp(arrow):
        return _NANOS if arrow.unit == "ns" else "timestamp" if arrow.tz else "timestamp_ntz"
    if pa.types.is_decimal128(arrow):
        return f"decimal({arrow.precision},{arrow.scale})"
    if pa.types.is_fixed_size_binary(arrow):
        return "binary"
    if pa.types.is_duration(arrow):
        return "bigint"
    if pa.types.is_map(arrow):
        return _nested("map<{},{}>", arrow.key_type, arrow.item_type)
    if pa.types.is_struct(arrow):
        fields = [arrow.field(n) for n in range(arrow.num_fields)]
        return _nested("struct<" + ",".join(f"{quoted(f.name)}:{{}}" for f in fields) + ">", *[f.type for f in fields])
    if pa.types.is_list(arrow) or pa.types.is_large_list(arrow) or pa.types.is_fixed_size_list(arrow):
        return _nested("array<{}>", arrow.value_type)
    return _PLAIN.get(arrow)


def _nested(shape: str, *arrows: pa.DataType) -> str | None:
    kinds = [_kind(arrow) for arrow in arrows]
    return None if None in kinds else shape.format(*["int" if kind == _NULL else kind for kind in kinds if kind])


def _in_file(kind: str) -> str:
    """The type by which Spark reads the column."""
    return "int" if kind == _NULL else _with_nanos_as(kind, "bigint")


def _with_nanos_as(kind: str, other: str) -> str:
    return re.sub(rf"(?<![^:<,]){_NANOS}(?![^,>])", other, kind)


def _common(kinds: Sequence[str]) -> str:
    some = {_with_nanos_as(kind, "timestamp") for kind in kinds if kind != _NULL}
    if len(some) <= 1:
        return next(iter(some), "string")
    if some <= _INTEGERS:
        return "bigint"
    return "timestamp" if some <= _TIMES else "string"


def _typed(name: str, kind: str, common: str) -> Column:
    """The column in the type that all files share."""
    from pyspark.sql import functions as F
    from pyspark.sql.types import DataType

    if kind == _NULL:
        return _null(common)
    column = F.col(quoted(name))
    if kind != (plain := _with_nanos_as(kind, "timestamp")):
        column, kind = _as_times(column, DataType.fromDDL(kind)), plain
    if kind == common:
        return column
    nested = kind.startswith(("array<", "struct<", "map<"))
    if kind == "float" and common == "string":
        return id_text(column, kind)  # it may be an id; a number is read from either form
    return F.to_json(column) if nested else column.cast(common)


def _as_times(column: Column, kind: DataType) -> Column:
    """The column with a timestamp for each of the nanoseconds in it, cut off to microseconds."""
    from pyspark.sql import functions as F
    from pyspark.sql.types import ArrayType, MapType, NullType, StructType

    match kind:
        case NullType():
            return F.timestamp_micros(F.call_function("div", column, F.lit(1000)))
        case StructType():
            fields = [_as_times(column[field.name], field.dataType).alias(field.name) for field in kind]
            return F.when(column.isNotNull(), F.struct(*fields))
        case ArrayType():
            return F.transform(column, lambda one: _as_times(one, kind.elementType))
        case MapType():
            return F.transform_values(column, lambda _, one: _as_times(one, kind.valueType))
        case _:
            return column


def _null(kind: str) -> Column:
    from pyspark.sql import functions as F

    return F.lit(None).cast(kind)
