"""The embedding row of each value of a field: looked up among the training exposures' values, or hashed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from learn_spark.ads.inputs.numbering import batches, write_in_order
from learn_spark.ads.inputs.shown import Shown
from learn_spark.core.storage.path import StoragePath

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

UNKNOWN, NULL, FIRST = 0, 1, 2
READ_ROWS = 65_536
TEXT = pa.large_string()  # the texts of one array may be longer than 2^31 bytes together
SCHEMA = pa.schema([("field", pa.string()), ("value", pa.string()), ("row", pa.int32())])


@dataclass(frozen=True)
class Lookup:
    """The i-th of ``values``, all different and ascending, has the row FIRST + i; other values have the row UNKNOWN,
    null has NULL.
    """

    values: pa.LargeStringArray

    @property
    def size(self) -> int:
        """Rows of the embedding table."""
        return FIRST + len(self.values)


@dataclass(frozen=True)
class Hashed:
    """CRC-32 of a value modulo ``buckets``, from FIRST on; a value that was not in training shares some bucket."""

    buckets: int

    @property
    def size(self) -> int:
        """Rows of the embedding table."""
        return FIRST + self.buckets


Vocabulary = Lookup | Hashed


def lookups_of(shown: Shown, train: Column, min_count: int, path: StoragePath, *, small: bool) -> dict[str, Lookup]:
    """By field the values of at least ``min_count`` of the exposures that satisfy ``train``; Spark writes them below
    ``path``.

    Rarer values train the row UNKNOWN, so that a new value reads a trained row.
    """
    from pyspark.sql import functions as F

    pairs = [
        F.struct(F.lit(number).alias("field"), F.col(shown.column(field)).alias("value"))
        for number, field in enumerate(shown.fields)
    ]
    values = shown.frame.where(train).select(F.explode(F.array(*pairs)).alias("of")).select("of.field", "of.value")
    counted = values.where("value IS NOT NULL").groupBy("field", "value").count()
    kept = counted.where(F.col("count") >= min_count).select("field", "value")
    write_in_order(kept, ["field", "value"], path, small=small)
    parts: list[list[pa.Array]] = [[] for _ in shown.fields]
    for batch in batches(path, ["field", "value"], READ_ROWS):
        for number in pc.unique(batch["field"]).to_pylist():
            parts[number].append(batch.filter(pc.equal(batch["field"], number))["value"].cast(TEXT))
    none = [pa.array([], TEXT)]
    return {field: Lookup(pa.concat_arrays(texts or none)) for field, texts in zip(shown.fields, parts, strict=True)}


def write_vocabularies(vocabularies: Mapping[str, Vocabulary], path: StoragePath) -> None:
    """Write all Lookup vocabularies as one Parquet file of SCHEMA (field, value, row)."""
    path.file_system.create_dir(path.parent.inner, recursive=True)
    with pq.ParquetWriter(path.inner, SCHEMA, filesystem=path.file_system, compression="zstd") as file:
        for field, vocabulary in vocabularies.items():
            if isinstance(vocabulary, Lookup):
                for start in range(0, len(vocabulary.values), READ_ROWS):
                    values = vocabulary.values.slice(start, READ_ROWS).cast(pa.string())
                    rows = pa.array(range(FIRST + start, FIRST + start + len(values)), pa.int32())
                    file.write_table(pa.table([pa.repeat(field, len(values)), values, rows], schema=SCHEMA))


def read_vocabularies(path: StoragePath, fields: Sequence[str], buckets: int | None) -> dict[str, Vocabulary]:
    """The inverse of ``write_vocabularies``; with ``buckets`` every field is Hashed."""
    if buckets is not None:
        return {field: Hashed(buckets) for field in fields}
    parts: dict[str, list[pa.Array]] = {field: [pa.array([], TEXT)] for field in fields}
    with pq.ParquetFile(path.inner, filesystem=path.file_system) as file:
        for batch in file.iter_batches(READ_ROWS, columns=["field", "value"]):
            for field in pc.unique(batch["field"]).to_pylist():
                parts[field].append(batch.filter(pc.equal(batch["field"], field))["value"].cast(TEXT))
    return {field: Lookup(pa.concat_arrays(texts)) for field, texts in parts.items()}


def with_rows(shown: Shown, vocabularies: Mapping[str, Vocabulary], path: StoragePath) -> DataFrame:
    """The frame of ``shown`` with the embedding row of each field as row_0, row_1, ... in place of its text.

    ``path`` is the file of ``write_vocabularies``.
    """
    from pyspark.sql import functions as F

    frame = shown.frame
    known = frame.sparkSession.read.schema("field string, value string, row int").parquet(path.spark)
    for number, (field, vocabulary) in enumerate(vocabularies.items()):
        text = shown.column(field)
        if isinstance(vocabulary, Hashed):
            row = F.crc32(text) % F.lit(vocabulary.buckets) + FIRST
        else:
            of_field = known.where(F.col("field") == field).select(
                F.col("value").alias(f"_{text}"), F.col("row").alias("_row")
            )
            frame = frame.join(of_field, F.col(text) == F.col(f"_{text}"), "left")
            row = F.coalesce("_row", F.lit(UNKNOWN))
        row = F.when(F.col(text).isNull(), NULL).otherwise(row).cast("int")
        frame = frame.withColumn(f"row_{number}", row).drop(text, f"_{text}", "_row")
    return frame
