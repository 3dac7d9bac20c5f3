"""Rows written in an order, each with its number in it, by tasks that do not know of each other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from learn_spark.core.storage.path import StoragePath

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_PLACE_BITS = 33  # of monotonically_increasing_id: below them is the place in the partition
_PART = re.compile(r"part-(\d+)-[^/]*$")  # the partition, in the name of a file that Spark wrote
READ_BUFFER_BYTES = 1 << 20


def write_in_order(frame: DataFrame, order: Sequence[str], path: StoragePath, *, small: bool) -> None:
    """Write ``frame`` as Parquet files whose rows, file after file by name, are in ``order``.

    ``small``: one task sorts, which is faster for few rows.
    """
    ordered = frame.coalesce(1).sortWithinPartitions(*order) if small else frame.orderBy(*order)
    ordered.write.mode("overwrite").parquet(path.spark)


def write_numbered(
    frame: DataFrame, order: Sequence[str], path: StoragePath, *, first: int, small: bool
) -> tuple[DataFrame, int]:
    """(the written rows of ``write_in_order`` with their ``number``, from ``first`` on; how many there are)."""
    from pyspark.sql import functions as F

    spark = frame.sparkSession
    ordered = frame.coalesce(1).sortWithinPartitions(*order) if small else frame.orderBy(*order)
    place = F.monotonically_increasing_id().bitwiseAND((1 << _PLACE_BITS) - 1)
    marked = ordered.withColumn("_part", F.spark_partition_id()).withColumn("_place", place)
    marked.write.mode("overwrite").parquet(path.spark)
    written = spark.read.schema(marked.schema).parquet(path.spark)
    sizes: Counter[int] = Counter()
    for name in path.parquet_files():
        found = _PART.search(name)
        assert found is not None, name
        sizes[int(found[1])] += pq.read_metadata(name, filesystem=path.file_system).num_rows
    starts, next_number = [], first
    for part in range(max(sizes, default=-1) + 1):
        starts.append(next_number)
        next_number += sizes[part]
    start = F.get(F.array(*[F.lit(start).cast("long") for start in starts or [first]]), F.col("_part"))
    numbered = written.withColumn("number", start + F.col("_place")).drop("_part", "_place")
    return numbered, next_number - first


def batches(path: StoragePath, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """The ``columns`` of the rows below ``path`` in the order of ``write_in_order``, at most ``rows`` at once."""
    for name in path.parquet_files():
        with pq.ParquetFile(name, buffer_size=READ_BUFFER_BYTES, filesystem=path.file_system) as file:
            for batch in file.iter_batches(rows, columns=list(columns)):
                if batch.num_rows:
                    yield batch.select(list(columns))
