"""The source of format ``files``: CSV, JSON lines, Parquet or Delta, with files and columns named in the settings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from learn_spark.core.causes import first_line
from learn_spark.core.errors import SettingsError
from learn_spark.core.settings.source import FilesSettings, FilesSourceSettings, SourceSettings
from learn_spark.core.storage.path import StoragePath
from learn_spark.data.sources.column_names import quoted
from learn_spark.data.sources.delta_tables import Session, find_table
from learn_spark.data.sources.kafka import find_partitions
from learn_spark.data.sources.location import LocationError
from learn_spark.data.sources.raw_rows import raw_rows
from learn_spark.data.sources.source import (
    EVENT_COLUMNS,
    ITEM_COLUMNS,
    ROW_COLUMNS,
    FileKind,
    RawFile,
    TimeUnit,
    find_files,
    of_kind,
)
from learn_spark.data.sources.text_lines import shape
from learn_spark.data.sources.typed_rows import id_text
from learn_spark.data.sources.wording import shown, shown_names

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession


class ConfiguredSource:
    """``source.items`` and ``source.events``. Rows for which ``where`` is false or null are skipped."""

    def __init__(self, settings: SourceSettings, session: Session | None = None) -> None:
        if not isinstance(settings, FilesSourceSettings):
            raise ValueError(f"format files needs items and events, which format {settings.format} does not have")
        self._items, self._events = settings.items, settings.events
        self._event_type, self._unit = settings.event_type, settings.time_unit
        self._session = session

    @property
    def time_unit(self) -> TimeUnit:
        """``source.time_unit``."""
        return self._unit

    def files(self, folder: StoragePath) -> list[RawFile]:
        """The files that the two patterns match. Raises LocationError where a pattern matches none."""
        files: dict[str, RawFile] = {}
        for kind, described in self._both():
            for file in find_described(folder, described, kind, self._session):
                earlier = files.get(file.name)
                kinds = file.kinds | earlier.kinds if earlier else file.kinds
                files[file.name] = replace(file, kinds=kinds)
        return [files[name] for name in sorted(files)]

    def items(self, spark: SparkSession, folder: StoragePath, files: Sequence[RawFile]) -> DataFrame:
        """The items described by ``source.items``."""
        return self._read(spark, folder, of_kind(files, "items"), self._items, ITEM_COLUMNS, {})

    def events(self, spark: SparkSession, folder: StoragePath, files: Sequence[RawFile]) -> DataFrame:
        """The events described by ``source.events``; their type is ``source.event_type`` where no column has it."""
        chosen = self._events.columns.get("event_type")
        constant = {} if chosen else {"event_type": self._event_type}
        return self._read(spark, folder, of_kind(files, "events"), self._events, EVENT_COLUMNS, constant)

    def _both(self) -> list[tuple[FileKind, FilesSettings]]:
        return [("items", self._items), ("events", self._events)]

    def _read(
        self,
        spark: SparkSession,
        folder: StoragePath,
        files: Sequence[RawFile],
        described: FilesSettings,
        output_columns: Sequence[str],
        constant: dict[str, str],
    ) -> DataFrame:
        frame = raw_rows(spark, folder, files, described)
        section = "source.items" if output_columns is ITEM_COLUMNS else "source.events"
        return mapped_rows(frame, described, output_columns, constant, section)


def mapped_rows(
    frame: DataFrame,
    described: FilesSettings,
    output_columns: Sequence[str],
    constant: dict[str, str],
    section: str,
) -> DataFrame:
    """``output_columns`` as text, by the columns and expressions of ``described``, and ROW_COLUMNS.

    A timestamp of the files is ISO text, whatever ``time_unit`` says. ``constant`` has texts for columns that none is
    mapped to. Raises SettingsError, which names the setting and the files' columns, where an expression does not fit.
    """
    from pyspark.sql import functions as F

    fields = [name.removeprefix("f_") for name in frame.columns if name.startswith("f_")]
    # Expressions use the file's column names, so the contract's names are assigned last.
    named = frame.toDF(*[name.removeprefix("f_") if name.startswith("f_") else f"_{name}" for name in frame.columns])
    if described.where is not None:
        kept = F.col("_malformed") | F.coalesce(F.expr(described.where), F.lit(False))
        check_fits(named, kept, f"{section}.where", described.where, fields)
        named = named.where(kept)
    columns: dict[str, Column] = {name: F.lit(value) for name, value in constant.items()}
    for ours, theirs in described.columns.items():
        columns[ours] = value_of(theirs, fields, f"{section}.columns.{ours}")
        kind = check_fits(named, columns[ours], f"{section}.columns.{ours}", theirs, fields)
        if ours in ("item_id", "user_id"):
            columns[ours] = id_text(columns[ours], kind)
    values = named.select(
        *[F.when(~F.col("_malformed"), c.cast("string")).alias(n) for n, c in columns.items()],
        *[F.col(f"_{name}").alias(name) for name in ROW_COLUMNS],
    )
    return shape(values, output_columns, {name: F.col(name) for name in columns})


def check_fits(frame: DataFrame, column: Column, setting: str, sql: str, fields: Sequence[str]) -> str:
    """Spark's type of ``column``. Raises SettingsError where it cannot be computed from the frame's columns."""
    from pyspark.errors import AnalysisException, ParseException

    try:
        return frame.select(column.alias("value")).dtypes[0][1]
    except (AnalysisException, ParseException) as error:
        raise SettingsError(
            f"{setting}: {shown(sql)!r} does not fit the files: {reason(error)}; the files have the columns "
            f"{shown_names(fields)}"
        ) from None


def reason(error: Exception) -> str:
    """Spark's complaint about an expression, in one short sentence."""
    first = first_line(error)
    if found := re.search(r"with name (`.*?`) cannot be resolved", first):
        return f"there is no column {found[1].replace('`', '')}"
    if found := re.search(r"routine (`.*?`)", first) if "UNRESOLVED_ROUTINE" in first else None:
        return f"there is no function {found[1].split('.')[-1].strip('`')}"
    return shown(re.sub(r"^\[[A-Z_.]+\] | ?SQLSTATE: \w+", "", first).rstrip(". "), 300)


def value_of(theirs: str, fields: Sequence[str], setting: str) -> Column:
    """The column of that name, or the expression. Raises SettingsError, which names ``setting``."""
    from pyspark.sql import functions as F

    try:
        return F.col(quoted(theirs)) if theirs in fields else F.expr(theirs)
    except Exception as error:
        raise SettingsError(f"{setting}: {shown(theirs)!r} is no SQL expression: {reason(error)}") from None


def find_described(
    folder: StoragePath, described: FilesSettings, kind: FileKind, session: Session | None = None
) -> list[RawFile]:
    """The files that ``described`` names, or its Delta table. Raises LocationError where there is none.

    ``session`` gives the Spark session that knows the catalog; None: no catalog is asked.
    """
    if described.format == "kafka":
        if session is None or described.brokers is None:
            raise LocationError(f"the topics {described.files} can be read by a stage alone")
        return find_partitions(session(), described.brokers, described, kind)
    if described.format == "delta":
        return [find_table(folder, described.files, kind, session)]
    return find_files(folder, described.files, [kind])
