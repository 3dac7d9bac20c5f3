"""Any two CSV files with headers, described in settings: which file, which column is which, which unit times have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from learn_spark.settings.schema import CsvFile
from learn_spark.settings.schema import Source as SourceSettings
from learn_spark.sources.location import LocationError
from learn_spark.sources.source import EVENT_COLUMNS, ITEM_COLUMNS, RawTables

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


class GenericCsv:
    """``source.items`` and ``source.events``; plain or gzip, quoted by RFC 4180 (a quote inside quotes is doubled)."""

    def __init__(self, settings: SourceSettings) -> None:
        self.settings = settings

    def files(self, folder: Path) -> list[Path]:
        """The two files; LocationError names the one that is missing or outside the folder."""
        return [self._path(folder, file) for file in self._described()]

    def read(self, spark: SparkSession, folder: Path) -> RawTables:
        """The named columns; what the files do not have is null."""
        from pyspark.sql import functions as F

        items, events = self._described()
        raw_events = self._read(spark, self._path(folder, events), events, EVENT_COLUMNS)
        event_type = F.coalesce("event_type", F.lit(self.settings.event_type))
        return RawTables(
            items=self._read(spark, self._path(folder, items), items, ITEM_COLUMNS),
            events=raw_events.withColumn("event_type", event_type),
            time_unit=self.settings.time_unit,
        )

    def _described(self) -> tuple[CsvFile, CsvFile]:
        if self.settings.items is None or self.settings.events is None:
            raise ValueError("format csv needs items and events")
        return self.settings.items, self.settings.events

    def _path(self, folder: Path, file: CsvFile) -> Path:
        path = (folder / file.file).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            raise LocationError(f"source.path: there is no {file.file} in {folder}")
        return path

    def _read(self, spark: SparkSession, path: Path, file: CsvFile, wanted: tuple[str, ...]) -> DataFrame:
        from pyspark.sql import functions as F
        from pyspark.sql.types import StringType, StructField, StructType

        reader = spark.read.options(header=True, sep=self.settings.separator, escape='"', multiLine=False)
        header = reader.csv(f"file://{path}").columns
        missing = [name for name in file.columns.values() if name not in header]
        if missing:
            raise LocationError(f"{path}: no column {', '.join(missing)} in its header ({', '.join(header)})")
        broken = "_broken_line"
        schema = StructType([StructField(name, StringType()) for name in (*header, broken)])
        # With pruned columns Spark would not see that a line is broken elsewhere.
        rows = reader.options(mode="PERMISSIVE", columnNameOfCorruptRecord=broken, columnPruning=False).schema(schema)
        frame = rows.csv(f"file://{path}").select(
            *[F.col(f"`{name}`").alias(f"c{i}") for i, name in enumerate(header)], broken
        )
        place = {name: f"c{i}" for i, name in enumerate(header)}
        malformed = F.col(broken).isNotNull()
        as_json = F.to_json(F.struct(*[F.col(place[name]).alias(name) for name in header]))
        line_json = F.to_json(F.struct(F.col(broken).alias("line")))
        values = [
            F.expr(f"nullif(trim({place[file.columns[name]]}), '')").alias(name)
            if name in file.columns
            else F.lit(None).cast("string").alias(name)
            for name in wanted
        ]
        return frame.select(
            *values, F.when(malformed, line_json).otherwise(as_json).alias("raw"), malformed.alias("malformed")
        )
