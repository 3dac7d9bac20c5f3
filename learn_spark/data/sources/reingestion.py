"""Rows that leave quarantine: events whose item has arrived, and rows that today's settings accept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow.compute as pc
import pyarrow.parquet as pq

from learn_spark.core.quality.quarantine import keep, row_id
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.data.sources.landing import UNKNOWN_ITEM, LandedRows
from learn_spark.data.sources.typed_rows import event_from_json

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


_MOST_IDS = 1_000


class QuarantinedEvents:
    """Quarantined events whose item is now in the catalogue. They stay in quarantine until ``remove``.

    ``good`` is the number of those that break no other rule.
    """

    def __init__(self, spark: SparkSession, quarantine_path: str, items_path: str, place: StoragePath) -> None:
        from pyspark.sql import functions as F

        self._spark, self._path = spark, quarantine_path
        delta.create_if_missing(quarantine_path, contract("quarantine"))
        self.rows: DataFrame | None = None
        self.good, self._others = 0, 0
        self._ids: list[str] | None = []
        if not _some_may_have_arrived(Snapshot.open(quarantine_path), items_path):
            return
        waiting = delta.read(spark, quarantine_path).where("source_table = 'interactions' and parsed is not null")
        items = delta.read(spark, items_path).select("item_id")
        arrived = waiting.withColumn("event", event_from_json("parsed")).withColumn("item_id", F.col("event.item_id"))
        arrived = arrived.join(items, "item_id", "left_semi").drop("item_id")
        arrived = arrived.withColumns(
            {"old_row_id": F.col("row_id"), "reasons": F.array_remove("reasons", UNKNOWN_ITEM)}
        )
        # Written to files, because the table that is read here changes below.
        path = (place / "arrived").spark
        arrived.write.mode("overwrite").parquet(path)
        written = spark.read.schema(arrived.schema).parquet(path)
        self.good, self._others, self._ids = _arrived(place / "arrived")
        self.rows = written if self.good or self._others else None

    def good_events(self) -> DataFrame | None:
        """The events that break no other rule, with the columns of interactions."""
        from pyspark.sql import functions as F

        if self.rows is None:
            return None
        return self.rows.where(F.size("reasons") == 0).select("event.*").select(*contract("interactions").names)

    def remove(self) -> None:
        """Remove them from quarantine. Events that break another rule stay there with that reason only."""
        from pyspark.sql import functions as F

        if self.rows is None:
            return
        if self._others:
            others = self.rows.where(F.size("reasons") > 0).withColumns(
                {"row_id": row_id("interactions"), "parsed": F.lit(None).cast("string")}
            )
            keep(others.select(*contract("quarantine").names), self._path, most=self._others)
        table = delta.delta_table(self._spark, self._path)
        if self._ids is not None:  # in a condition: fewer jobs than a merge
            table.delete(F.col("row_id").isin(self._ids))
            return
        removed = self.rows.select(F.col("old_row_id").alias("row_id"))
        table.alias("t").merge(removed.alias("s"), "t.row_id = s.row_id").whenMatchedDelete().execute()


def _some_may_have_arrived(quarantined: Snapshot, items_path: str) -> bool:
    """Whether an event in quarantine waits for an item that is there now; True too where it has too many to look at."""
    if not quarantined.rows:
        return False
    items = Snapshot.open(items_path)
    if not quarantined.is_small or not items.is_small:
        return True
    rows = quarantined.to_arrow(["source_table", "parsed"])
    waiting = rows.filter(pc.and_(pc.equal(rows["source_table"], "interactions"), pc.is_valid(rows["parsed"])))
    if not waiting.num_rows:
        return False
    waited_for = {json.loads(event).get("item_id") for event in waiting["parsed"].to_pylist()}
    return not waited_for.isdisjoint(items.to_arrow(["item_id"])["item_id"].to_pylist())


def _arrived(folder: StoragePath) -> tuple[int, int, list[str] | None]:
    """Of a folder of Parquet files, read by batches: rows without reasons, with reasons, and the keys in quarantine,
    or None where there are more than ``_MOST_IDS``.
    """
    good = others = 0
    ids: list[str] = []
    for file in folder.parquet_files():
        with pq.ParquetFile(file, filesystem=folder.file_system) as parquet:
            for batch in parquet.iter_batches(columns=["old_row_id", "reasons"]):
                without = pc.sum(pc.equal(pc.list_value_length(batch["reasons"]), 0)).as_py() or 0
                good, others = good + without, others + batch.num_rows - without
                if good + others <= _MOST_IDS:
                    ids += batch["old_row_id"].to_pylist()
    return good, others, ids if good + others <= _MOST_IDS else None


def _rows_of(folder: StoragePath) -> int:
    """Number of rows of a folder of Parquet files, from their footers."""
    return sum(pq.read_metadata(file, filesystem=folder.file_system).num_rows for file in folder.parquet_files())


def remove_accepted(
    spark: SparkSession,
    path: str,
    landed: Mapping[str, LandedRows | None],
    files: Sequence[str],
    messages: Mapping[str, tuple[int, int]],
    place: StoragePath,
) -> int:
    """Remove the quarantined rows of these files that this run did not refuse; the number of removed rows.

    ``landed`` has the rows of all ``files`` by table, and of all ``messages``: partition of a topic -> (first offset,
    the one after the last). A row that other reasons refuse now is in quarantine with those.
    """
    from pyspark.sql import functions as F

    read = F.col("source_file").isin(list(files))
    offset = F.get_json_object("raw", "$.offset").cast("bigint")
    for partition, (begin, end) in messages.items():
        read = read | ((F.col("source_file") == partition) & (offset >= begin) & (offset < end))
    removed = None
    for table, rows in landed.items():
        here = (F.col("source_table") == table) & read
        existing = delta.read(spark, path).where(here).select("row_id")
        if rows is not None:
            existing = existing.join(rows.refused().select(row_id(table).alias("row_id")), "row_id", "left_anti")
        removed = existing if removed is None else removed.unionByName(existing)
    if removed is None:
        return 0
    # Written to files, because the table that is read here changes below.
    at = (place / "accepted").spark
    removed.write.mode("overwrite").parquet(at)
    written = spark.read.schema("row_id string").parquet(at)
    if number := _rows_of(place / "accepted"):
        merge = delta.delta_table(spark, path).alias("t").merge(written.alias("s"), "t.row_id = s.row_id")
        merge.whenMatchedDelete().execute()
    return number
