"""Read raw files once into typed and checked Parquet rows, before any table is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import pyarrow.dataset as ds

from learn_spark.core.causes import first_line
from learn_spark.core.errors import RowCountError, SettingsError
from learn_spark.core.quality.reasons import EXAMPLE_CHARACTERS, ReasonCount, counted, example_of
from learn_spark.core.quality.rows import check_rows
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.erased import ErasedUsers
from learn_spark.core.tables.observed import observed
from learn_spark.core.tables.small import SMALL_ROWS
from learn_spark.data.sources.corrupt_files import naming_corrupt_files
from learn_spark.data.sources.kafka import messages_of
from learn_spark.data.sources.source import RawFile, Source, check_names, of_kind
from learn_spark.data.sources.times import clash, time_metrics
from learn_spark.data.sources.typed_rows import event_as_json, spelling_metrics, typed_events, typed_items

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

UNKNOWN_ITEM = "unknown item"
_BYTES_A_ROW, _PACKED_TIMES, _PACKED = 20, 8, {".gz", ".bz2", ".zip", ".parquet"}


@dataclass(frozen=True)
class LandedRows:
    """Checked rows of one table.

    The columns are those of the contract, reasons, flaws, raw (null for rows without either), parsed and source_file.
    ``read`` is the number of rows in the files, ``by_file`` (rows, refused) as written, by file name. ``reasons``
    counts the refused rows by reason, ``flaws`` the good rows with a field that became null. ``decomposed`` has
    (column, rows, example) of ids in decomposed spelling. ``erased`` rows of erased users were read and are not among
    the rows.
    """

    frame: DataFrame
    read: int
    by_file: dict[str, tuple[int, int]]
    reasons: tuple[ReasonCount, ...] = ()
    flaws: tuple[ReasonCount, ...] = ()
    decomposed: tuple[tuple[str, int, str], ...] = ()
    erased: int = 0

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
    """Writes the rows of some files of one source below ``place``.

    ``time_formats`` are those of the settings; None for a source whose time unit is no setting. ``erased``: the users
    whose events stay out.
    """

    spark: SparkSession
    source: Source
    folder: StoragePath
    files: Sequence[RawFile]
    place: StoragePath
    time_formats: Sequence[str] | None = None
    erased: ErasedUsers | None = None

    def items(self) -> LandedRows | None:
        """The items; None where no file has any. Raises UnreadableFileError for a file that cannot be fully read."""
        from pyspark.sql import functions as F

        files = of_kind(self.files, "items")
        if not files:
            return None
        check_names(files)
        raw = self.source.items(self.spark, self.folder, files)
        typed = typed_items(raw, self.source.time_unit, self.time_formats or ())
        return self._write("items", typed, files, lambda checked: checked.withColumn("parsed", F.lit(None)))

    def events(self, known_items: DataFrame) -> LandedRows | None:
        """The events; None where no file has any. ``known_items`` has a column item_id, each once."""
        from pyspark.sql import functions as F

        files = of_kind(self.files, "events")
        if not files:
            return None
        check_names(files)
        raw = self.source.events(self.spark, self.folder, files)

        def with_known_items(events: DataFrame) -> DataFrame:
            existing = known_items.select("item_id", F.lit(True).alias("item_is_known"))
            joined = events.join(existing, "item_id", "left")
            return joined.withColumn("item_is_known", F.coalesce("item_is_known", F.lit(False)))

        typed = typed_events(raw, self.source.time_unit, self.time_formats or ())
        waits = F.when(F.array_contains("reasons", UNKNOWN_ITEM), event_as_json())
        return self._write(
            "interactions", typed, files, lambda checked: checked.withColumn("parsed", waits), with_known_items
        )

    def _write(
        self,
        table: str,
        typed: DataFrame,
        files: Sequence[RawFile],
        with_parsed: Callable[[DataFrame], DataFrame],
        completed: Callable[[DataFrame], DataFrame] = lambda frame: frame,
    ) -> LandedRows:
        from pyspark.errors import ArithmeticException, DateTimeException, NumberFormatException
        from pyspark.sql import Observation
        from pyspark.sql import functions as F

        described, observation = contract(table), Observation()
        times = ("event_time", "updated_at") if table == "interactions" else ("updated_at",)
        ids = ("user_id", "item_id") if table == "interactions" else ("item_id",)
        metrics = [F.count(F.lit(1)).alias("rows"), *(one for column in times for one in time_metrics(column))]
        metrics += [one for column in ids for one in spelling_metrics(column)]
        rows, staying_out = typed.observe(observation, *metrics), Observation()
        guarded = self.erased is not None and table == "interactions"
        if self.erased is not None and guarded:
            marked = self.erased.marked(rows).observe(staying_out, F.count_if("_erased").alias("erased"))
            rows = marked.where("not _erased").drop("_erased")
        checked = check_rows(completed(rows), described.row_rules)
        kept = with_parsed(checked).select(
            *described.names,
            "reasons",
            "flaws",
            "source_file",
            F.when(F.size("reasons") + F.size("flaws") > 0, F.col("raw")).alias("raw"),
            F.col("parsed").cast("string"),
        )
        path = (self.place / table).spark
        try:
            with naming_corrupt_files(files):
                kept.write.mode("overwrite").parquet(path)
        except (NumberFormatException, ArithmeticException, DateTimeException) as error:
            # The contract's columns use try_cast, so only an expression of the settings can fail.
            raise SettingsError(
                f"source.{'items' if table == 'items' else 'events'}: an expression in columns or where fails on a "
                f"row of the files; try_cast, try_divide and the like give null instead: {first_line(error)}"
            ) from None
        # Files without rows are missing from the metrics.
        values = observed(observation, self.spark) or {"rows": 0}
        if self.time_formats is not None and values["rows"]:
            self._require_times(table, times, values)
        landed = self.spark.read.schema(kept.schema).parquet(path)
        if values["rows"] <= SMALL_ROWS:
            landed = landed.coalesce(1)
            groups: Iterable[Sequence[Any]] = _groups_of_few(self.place / table)
        else:
            of_a_group = (F.count("*"), example_of(F.col("raw")))
            groups = landed.groupBy("source_file", "reasons", "flaws").agg(*of_a_group).collect()
        by_file: dict[str, tuple[int, int]] = {}
        for file, reasons, _, rows, _ in groups:
            earlier = by_file.get(file, (0, 0))
            by_file[file] = (earlier[0] + rows, earlier[1] + (rows if reasons else 0))
        if strange := by_file.keys() - {file.name for file in files}:
            raise RowCountError(f"{table}: rows were read from unexpected files: {sorted(strange, key=str)}")
        erased = (observed(staying_out, self.spark) or {"erased": 0})["erased"] if guarded else 0
        refused = counted((reasons, rows, example, file) for file, reasons, _, rows, example in groups)
        flawed = counted((flaws, rows, example, file) for file, reasons, flaws, rows, example in groups if not reasons)
        spelled = tuple(
            (column, values[f"{column}_decomposed"], values[f"{column}_spelled"])
            for column in ids
            if values.get(f"{column}_decomposed")
        )
        return LandedRows(landed, values["rows"], by_file, refused, flawed, spelled, erased)

    def _require_times(self, table: str, columns: Sequence[str], values: Mapping[str, Any]) -> None:
        section = "items" if table == "items" else "events"
        for column in columns:
            where = f"source.{section}.columns.{column}"
            if error := clash(values, column, self.source.time_unit, where=where, settings="source"):
                raise error


def land_all(landing: Landing, items_path: str) -> tuple[LandedRows | None, LandedRows | None]:
    """Items and events of the files. An event's item is known if the table or these files have it."""
    from learn_spark.core.tables import delta

    items = landing.items()
    known_items = delta.read(landing.spark, items_path).select("item_id")
    if items is not None:
        known_items = known_items.unionByName(items.good().select("item_id")).distinct()
    return items, landing.events(known_items)


def _groups_of_few(folder: StoragePath) -> list[tuple[str | None, list[str], list[str], int, str | None]]:
    """(source_file, reasons, flaws, rows, example) of the landed rows, without Spark."""
    files = folder.parquet_files()
    if not files:
        return []
    landed = ds.dataset(files, format="parquet", filesystem=folder.file_system)
    rows = landed.to_table(columns=["source_file", "reasons", "flaws", "raw"])
    good = pc.and_(pc.equal(pc.list_value_length(rows["reasons"]), 0), pc.equal(pc.list_value_length(rows["flaws"]), 0))
    counts = pc.value_counts(rows.filter(good)["source_file"]).to_pylist()
    groups: list[tuple[str | None, list[str], list[str], int, str | None]]
    groups = [(count["values"], [], [], count["counts"], None) for count in counts]
    others: dict[tuple[str | None, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for row in rows.filter(pc.invert(good)).to_pylist():
        key = (row["source_file"], tuple(row["reasons"]), tuple(row["flaws"]))
        others.setdefault(key, []).append((row["raw"] or "")[:EXAMPLE_CHARACTERS])
    for (file, reasons, flaws), raws in others.items():
        groups.append((file, list(reasons), list(flaws), len(raws), min(raws)))
    return groups


def about_rows(files: Iterable[RawFile]) -> int:
    """A guess at the number of rows, from files' sizes; of a Delta table more than are few, of a topic the offsets."""
    rows = 0
    for file in files:
        packed = _PACKED_TIMES if file.path.suffix in _PACKED else 1
        if file.is_partition:
            rows += messages_of(file)
            continue
        rows += SMALL_ROWS + 1 if file.is_table else file.size * packed // _BYTES_A_ROW
    return rows
