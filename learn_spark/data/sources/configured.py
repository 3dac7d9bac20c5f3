"""The source of format ``files``: CSV, JSON lines, Parquet or Delta, with files and columns named in the settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from learn_spark.core.errors import SettingsError
from learn_spark.core.settings.source import FilesSettings, FilesSourceSettings, SourceSettings
from learn_spark.core.tables.snapshot import current_version
from learn_spark.data.sources.location import LocationError
from learn_spark.data.sources.source import (
    EVENT_COLUMNS,
    ITEM_COLUMNS,
    FileKind,
    RawFile,
    TimeUnit,
    UnreadableFileError,
    find_files,
    of_kind,
)
from learn_spark.data.sources.text_lines import first_line, read_csv, shape, spark_path, with_source_file

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

_BROKEN = "_broken_line"


class ConfiguredSource:
    """``source.items`` and ``source.events``. Rows for which ``where`` is false or null are skipped."""

    def __init__(self, settings: SourceSettings) -> None:
        if not isinstance(settings, FilesSourceSettings):
            raise ValueError(f"format files needs items and events, which format {settings.format} does not have")
        self._items, self._events = settings.items, settings.events
        self._event_type, self._unit = settings.event_type, settings.time_unit

    @property
    def time_unit(self) -> TimeUnit:
        """``source.time_unit``."""
        return self._unit

    def files(self, folder: Path) -> list[RawFile]:
        """The files that the two patterns match. Raises LocationError where a pattern matches none."""
        files: dict[str, RawFile] = {}
        for kind, described in self._both():
            for file in find_described(folder, described, kind):
                earlier = files.get(file.name)
                kinds = file.kinds | earlier.kinds if earlier else file.kinds
                files[file.name] = RawFile(file.path, file.name, kinds, file.state)
        return [files[name] for name in sorted(files)]

    def items(self, spark: SparkSession, folder: Path, files: Sequence[RawFile]) -> DataFrame:
        """The items described by ``source.items``."""
        return self._read(spark, folder, of_kind(files, "items"), self._items, ITEM_COLUMNS, {})

    def events(self, spark: SparkSession, folder: Path, files: Sequence[RawFile]) -> DataFrame:
        """The events described by ``source.events``; their type is ``source.event_type`` where no column has it."""
        chosen = self._events.columns.get("event_type")
        constant = {} if chosen else {"event_type": self._event_type}
        return self._read(spark, folder, of_kind(files, "events"), self._events, EVENT_COLUMNS, constant)

    def _both(self) -> list[tuple[FileKind, FilesSettings]]:
        return [("items", self._items), ("events", self._events)]

    def _read(
        self,
        spark: SparkSession,
        folder: Path,
        files: Sequence[RawFile],
        described: FilesSettings,
        output_columns: Sequence[str],
        constant: dict[str, str],
    ) -> DataFrame:
        from pyspark.errors import AnalysisException
        from pyspark.sql import functions as F

        frame = raw_rows(spark, folder, files, described)
        fields = [name.removeprefix("f_") for name in frame.columns if name.startswith("f_")]
        # Expressions use the file's column names, so the contract's names are assigned last.
        named = frame.select(
            *[F.col(f"`f_{name}`").alias(name) for name in fields],
            *[F.col(name).alias(f"_{name}") for name in ("raw", "malformed", "source_file")],
        )
        try:
            if described.where is not None:
                named = named.where(F.col("_malformed") | F.coalesce(F.expr(described.where), F.lit(False)))
            columns: dict[str, Column] = {n: F.lit(value) for n, value in constant.items()}
            columns |= {ours: _value(theirs, fields) for ours, theirs in described.columns.items()}
            kept = named.select(
                *[F.when(~F.col("_malformed"), c.cast("string")).alias(n) for n, c in columns.items()],
                *[F.col(f"_{name}").alias(name) for name in ("raw", "malformed", "source_file")],
            )
            # Analysed here, so that a wrong name is reported as a settings error.
            return shape(kept, output_columns, {name: F.col(name) for name in columns})
        except AnalysisException as error:
            first = next(line for line in str(error).splitlines() if line.strip())
            raise SettingsError(
                f"source: columns or where do not fit the files ({first.strip()[:300]}); the files have the columns "
                f"{', '.join(fields)}"
            ) from None


def _value(theirs: str, fields: Sequence[str]) -> Column:
    from pyspark.sql import functions as F

    return F.col(f"`{theirs}`") if theirs in fields else F.expr(theirs)


def find_described(folder: Path, described: FilesSettings, kind: FileKind) -> list[RawFile]:
    """The files that ``described`` names, or its Delta table. Raises LocationError where there is none."""
    if described.format != "delta":
        return find_files(folder, described.files, [kind])
    path = (folder / described.files).resolve()
    version = current_version(str(path)) if path.is_relative_to(folder.resolve()) else None
    if version is None:
        raise LocationError(f"source.path: there is no Delta table {described.files} in {folder}")
    return [RawFile(path, described.files, frozenset([kind]), f"version:{version}")]


def raw_rows(spark: SparkSession, folder: Path, files: Sequence[RawFile], described: FilesSettings) -> DataFrame:
    """Every column of the files as ``f_<name>`` (Parquet and Delta keep their types), and ROW_COLUMNS."""
    from pyspark.errors import AnalysisException
    from pyspark.sql import functions as F

    paths = [spark_path(file.path) for file in files]
    if described.format == "csv":
        plain = [name for name in described.columns.values() if _is_plain(name)]
        return read_csv(
            spark, folder, files, separator=described.separator, needed=plain, multiline=described.multiline
        )
    if described.format == "json-lines":
        for file in files:
            first_line(file)
        options: dict[str, bool | str] = {
            "primitivesAsString": True,
            "mode": "PERMISSIVE",
            "columnNameOfCorruptRecord": _BROKEN,
        }
        schema = spark.read.options(**options).json(paths).schema
        if _BROKEN not in schema.names:
            schema = schema.add(_BROKEN, "string")
        for name in described.columns.values():
            # A field may be missing from every line of a delivery, as from any single line.
            if _is_plain(name) and name not in schema.names:
                schema = schema.add(name, "string")
        rows = with_source_file(spark.read.options(**options).schema(schema).json(paths), folder)
    elif described.format == "parquet":
        try:
            rows = with_source_file(spark.read.option("mergeSchema", "true").parquet(*paths), folder)
        except AnalysisException as error:
            raise UnreadableFileError(files[0].name, f"it cannot be read as Parquet: {error.getCondition()}") from None
    else:
        (table,) = files
        version = int(table.state.removeprefix("version:"))
        rows = spark.read.format("delta").option("versionAsOf", version).load(str(table.path))
        rows = rows.withColumn("source_file", F.lit(table.name))
    fields = [name for name in rows.columns if name not in (_BROKEN, "source_file")]
    malformed = F.col(_BROKEN).isNotNull() if _BROKEN in rows.columns else F.lit(False)
    line = F.to_json(F.struct(F.col(_BROKEN).alias("line"))) if _BROKEN in rows.columns else F.lit(None)
    return rows.select(
        *[F.col(f"`{name}`").alias(f"f_{name}") for name in fields],
        F.when(malformed, line).otherwise(F.to_json(F.struct(*[F.col(f"`{n}`") for n in fields]))).alias("raw"),
        malformed.alias("malformed"),
        "source_file",
    )


def _is_plain(name: str) -> bool:
    """Whether this is a column name and not an expression."""
    return name.replace("_", "a").replace(" ", "a").replace(".", "a").replace("-", "a").isalnum() and not name.isdigit()
