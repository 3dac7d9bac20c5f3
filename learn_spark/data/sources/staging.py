"""Raw files judged and written to Parquet once, before any table is touched: what cannot be read stops here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from learn_spark.core.errors import RowCountError, SettingsError
from learn_spark.core.quality.rows import check_rows
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.observed import observed
from learn_spark.data.sources.broken_files import first_broken
from learn_spark.data.sources.source import RawFile, Source, of_kind
from learn_spark.data.sources.typed_rows import event_as_json, typed_events, typed_items

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

UNKNOWN_ITEM = "unknown item"


@dataclass(frozen=True)
class Staged:
    """Judged rows of one table: the contract's columns, and reasons, raw, parsed (both null for good rows),
    source_file. ``read`` rows came out of the files; ``by_file`` gives (rows, refused) as written, by file name.
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
        """Number of rows that break one."""
        return sum(refused for _, refused in self.by_file.values())

    def good(self) -> DataFrame:
        """The rows that break no rule."""
        from pyspark.sql import functions as F

        return self.frame.where(F.size("reasons") == 0)

    def refused(self) -> DataFrame:
        """The rows that break one."""
        from pyspark.sql import functions as F

        return self.frame.where(F.size("reasons") > 0)


@dataclass(frozen=True)
class Stager:
    """Stages the rows of some files of one source below ``place``."""

    spark: SparkSession
    source: Source
    folder: Path
    files: Sequence[RawFile]
    place: Path

    def items(self) -> Staged | None:
        """The items; None where no file holds any. UnreadableFileError names a file that cannot be read to its end."""
        from pyspark.sql import functions as F

        files = of_kind(self.files, "items")
        if not files:
            return None
        raw = self.source.items(self.spark, self.folder, files)
        return self._write("items", raw, lambda frame: typed_items(frame, self.source.time_unit), files, F.lit(None))

    def events(self, known_items: DataFrame) -> Staged | None:
        """The events; None where no file holds any. ``known_items`` has a column item_id, each once."""
        from pyspark.sql import functions as F

        files = of_kind(self.files, "events")
        if not files:
            return None
        raw = self.source.events(self.spark, self.folder, files)

        def typed(frame: DataFrame) -> DataFrame:
            events = typed_events(frame, self.source.time_unit)
            known = known_items.select("item_id", F.lit(True).alias("item_is_known"))
            joined = events.join(known, "item_id", "left")
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
    ) -> Staged:
        from pyspark.errors import ArithmeticException, DateTimeException, NumberFormatException
        from pyspark.sql import Observation
        from pyspark.sql import functions as F

        described, seen = contract(table), Observation()
        frame = typed(raw.observe(seen, F.count(F.lit(1)).alias("rows")))
        judged = check_rows(frame, described.row_rules)
        kept = judged.select(
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
            if broken := first_broken(files):
                raise broken from error
            if isinstance(error, (NumberFormatException, ArithmeticException, DateTimeException)):
                # Our own columns are cast by try_cast: it is an expression of the settings that fails.
                raise SettingsError(
                    f"source.{'items' if table == 'items' else 'events'}: an expression in columns or where fails on a "
                    f"row of the files; try_cast, try_divide and their like give null instead: {_first_line(error)}"
                ) from None
            raise
        staged = self.spark.read.schema(kept.schema).parquet(path)
        counted = staged.groupBy("source_file").agg(F.count("*"), F.count_if(F.size("reasons") > 0)).collect()
        by_file = {row[0]: (row[1], row[2]) for row in counted}
        if strange := by_file.keys() - {file.name for file in files}:
            raise RowCountError(f"{table}: rows came of files that were not asked for: {sorted(strange, key=str)}")
        # Of files without any rows nothing is seen.
        metrics = observed(seen, self.spark) or {"rows": 0}
        return Staged(staged, metrics["rows"], by_file)


def stage_all(stager: Stager, items_path: str) -> tuple[Staged | None, Staged | None]:
    """Items and events of the stager's files; an event's item is known if the table or these files have it."""
    from learn_spark.core.tables import delta

    items = stager.items()
    known = delta.read(stager.spark, items_path).select("item_id")
    if items is not None:
        known = known.unionByName(items.good().select("item_id")).distinct()
    return items, stager.events(known)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
