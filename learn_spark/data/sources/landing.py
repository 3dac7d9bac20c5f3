"""Read raw files once into typed and checked Parquet rows, before any table is changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from learn_spark.core.errors import RowCountError, SettingsError
from learn_spark.core.quality.rows import check_rows
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.observed import observed
from learn_spark.data.sources.corrupt_files import first_corrupt_file
from learn_spark.data.sources.source import RawFile, Source, of_kind
from learn_spark.data.sources.typed_rows import event_as_json, typed_events, typed_items

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

UNKNOWN_ITEM = "unknown item"


@dataclass(frozen=True)
class LandedRows:
    """Checked rows of one table.

    The columns are those of the contract, reasons, raw, parsed (both null for good rows) and source_file. ``read`` is
    the number of rows in the files, ``by_file`` (rows, refused) as written, by file name.
    """

    frame: DataFrame
    read: int
    by_file: dict[str, tuple[int, int]]

    @property
    def good_rows(self) -> int:
        """Number of rows that break no rule."""
        return sum(rows - refused for rows, refused in self.by_file.values())

    @property
    def refused_rows(self) -> int:
        """Number of rows that break a rule."""
        return sum(refused for _, refused in self.by_file.values())

    def good(self) -> DataFrame:
        """The rows that break no rule."""
        from pyspark.sql import functions as F

        return self.frame.where(F.size("reasons") == 0)

    def refused(self) -> DataFrame:
        """The rows that break a rule."""
        from pyspark.sql import functions as F

        return self.frame.where(F.size("reasons") > 0)


@dataclass(frozen=True)
class Landing:
    """Writes the rows of some files of one source below ``place``."""

    spark: SparkSession
    source: Source
    folder: Path
    files: Sequence[RawFile]
    place: Path

    def items(self) -> LandedRows | None:
        """The items; None where no file has any. Raises UnreadableFileError for a file that cannot be fully read."""
        from pyspark.sql import functions as F

        files = of_kind(self.files, "items")
        if not files:
            return None
        raw = self.source.items(self.spark, self.folder, files)
        return self._write("items", raw, lambda frame: typed_items(frame, self.source.time_unit), files, F.lit(None))

    def events(self, known_items: DataFrame) -> LandedRows | None:
        """The events; None where no file has any. ``known_items`` has a column item_id, each once."""
        from pyspark.sql import functions as F

        files = of_kind(self.files, "events")
        if not files:
            return None
        raw = self.source.events(self.spark, self.folder, files)

        def typed(frame: DataFrame) -> DataFrame:
            events = typed_events(frame, self.source.time_unit)
            existing = known_items.select("item_id", F.lit(True).alias("item_is_known"))
            joined = events.join(existing, "item_id", "left")
            return joined.withColumn("item_is_known", F.coalesce("item_is_known", F.lit(False)))

        waits = F.when(F.array_contains("reasons", UNKNOWN_ITEM), event_as_json())
        return self._write("interactions", raw, typed, files, waits)

    def _write(
        self,
        table: str,
        raw: DataFrame,
        typed: Callable[[DataFrame], DataFrame],
        files: Sequence[RawFile],
        parsed: Column,
    ) -> LandedRows:
        from pyspark.errors import ArithmeticException, DateTimeException, NumberFormatException
        from pyspark.sql import Observation
        from pyspark.sql import functions as F

        described, observation = contract(table), Observation()
        frame = typed(raw.observe(observation, F.count(F.lit(1)).alias("rows")))
        checked = check_rows(frame, described.row_rules)
        kept = checked.select(
            *described.names,
            "reasons",
            "source_file",
            F.when(F.size("reasons") > 0, F.col("raw")).alias("raw"),
            parsed.cast("string").alias("parsed"),
        )
        path = f"file:{self.place / table}"
        try:
            kept.write.mode("overwrite").parquet(path)
        except Exception as error:
            if broken := first_corrupt_file(files):
                raise broken from error
            if isinstance(error, (NumberFormatException, ArithmeticException, DateTimeException)):
                # The contract's columns use try_cast, so only an expression of the settings can fail.
                raise SettingsError(
                    f"source.{'items' if table == 'items' else 'events'}: an expression in columns or where fails on a "
                    f"row of the files; try_cast, try_divide and the like give null instead: {_first_line(error)}"
                ) from None
            raise
        landed = self.spark.read.schema(kept.schema).parquet(path)
        counted = landed.groupBy("source_file").agg(F.count("*"), F.count_if(F.size("reasons") > 0)).collect()
        by_file = {row[0]: (row[1], row[2]) for row in counted}
        if strange := by_file.keys() - {file.name for file in files}:
            raise RowCountError(f"{table}: rows were read from unexpected files: {sorted(strange, key=str)}")
        # Files without rows are missing from the counts.
        metrics = observed(observation, self.spark) or {"rows": 0}
        return LandedRows(landed, metrics["rows"], by_file)


def land_all(landing: Landing, items_path: str) -> tuple[LandedRows | None, LandedRows | None]:
    """Items and events of the files. An event's item is known if the table or these files have it."""
    from learn_spark.core.tables import delta

    items = landing.items()
    known_items = delta.read(landing.spark, items_path).select("item_id")
    if items is not None:
        known_items = known_items.unionByName(items.good().select("item_id")).distinct()
    return items, landing.events(known_items)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
