"""Logs of exposures or outcomes: read as described, typed, and checked by the row rules of schemas/exposures.yaml."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import reduce
from typing import TYPE_CHECKING

from learn_spark.core.errors import LearnSparkError, SettingsError
from learn_spark.core.quality.reasons import ReasonCount, counted, example_of
from learn_spark.core.quality.rows import check_rows
from learn_spark.core.settings.source import LogSettings
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.contracts import contract
from learn_spark.data.sources.column_names import quoted
from learn_spark.data.sources.configured import check_fits, find_described, reason, value_of
from learn_spark.data.sources.delta_tables import Session
from learn_spark.data.sources.raw_rows import raw_rows
from learn_spark.data.sources.source import RawFile
from learn_spark.data.sources.text_lines import blank_as_null
from learn_spark.data.sources.times import SEPARATOR, clash, moment
from learn_spark.data.sources.typed_rows import id_text, plain_id
from learn_spark.data.sources.wording import shown_names

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

POSITION_FROM_ZERO = "position is 0 but counts from 1"
# A list of a hundred places that count from 0 has this share of them.
LEAST_SHARE_FROM_ZERO = 0.01
NEEDED = ("user_id", "item_id", "event_time", "converted")


def log_files(folder: StoragePath, logs: list[LogSettings], session: Session | None = None) -> list[list[RawFile]]:
    """The files of each log. Raises LocationError where a log has none. ``session`` as for ``find_described``."""
    return [find_described(folder, log, "events", session) for log in logs]


def read_logs(
    spark: SparkSession,
    folder: StoragePath,
    logs: list[LogSettings],
    cohorts: Mapping[str, str],
    *,
    section: str = "logs",
    without: Collection[str] = (),
    say: Callable[[str], None] = lambda text: None,
) -> DataFrame:
    """All rows of all logs in the columns of exposures.

    Further columns are ``reasons`` (array<string>, empty for a good row), ``flaws`` (array<string>: the optional fields
    that became null), ``raw`` (the original row where it has either), ``wrong_time`` (the text of an event_time that
    was refused), ``source_file``, and ``cohort_<name>`` (string) for each expression of ``cohorts``. ``section`` is the
    name of the logs in the settings, ``without`` the names of files to leave out. ``say`` gets a line on the columns
    that are read by their names alone.

    Raises SettingsError where a log lacks a required column, or an expression does not fit; UnreadableFileError;
    LearnSparkError where no file is left.
    """
    frames = []
    for number, (log, files) in enumerate(zip(logs, log_files(folder, logs, lambda: spark), strict=True)):
        if left := [file for file in files if file.name not in without]:
            frames.append(_read(spark, folder, log, left, cohorts, f"{section}.{number}", say))
    if not frames:
        raise LearnSparkError(f"{section}: none of the {len(without):,} files in {folder} can be read")
    return reduce(lambda a, b: a.unionByName(b), frames)


def rows_by_reason(
    rows: DataFrame, read: int, logs: list[LogSettings], section: str
) -> tuple[tuple[ReasonCount, ...], tuple[ReasonCount, ...]]:
    """(refused rows by reason, good rows by the field that became null) of the ``read`` rows of ``read_logs``.

    Raises SettingsError where another setting would fit most times, or positions count from 0.
    """
    from pyspark.sql import functions as F

    broken = rows.where(F.size("reasons") + F.size("flaws") > 0)
    groups = broken.groupBy("reasons", "flaws", "source_file").agg(*_group_metrics()).collect()
    reasons = counted((row["reasons"], row["rows"], row["example"], row["source_file"]) for row in groups)
    every_flaw = counted((row["flaws"], row["rows"], row["example"], row["source_file"]) for row in groups)
    place = f"{section}.0" if len(logs) == 1 else f"{section}.N"
    zero = next((one for one in every_flaw if one.reason == POSITION_FROM_ZERO), None)
    if zero is not None and zero.rows >= LEAST_SHARE_FROM_ZERO * read:
        raise SettingsError(
            f"{place}: position is 0 in {zero.rows:,} of {read:,} rows, as in {zero.example} ({zero.file}), but the "
            f"first place is 1; set {place}.first_position: 0, or by_name: false if the column is not the place"
        )
    wrong = sum(row["wrong"] for row in groups)
    examples = sorted({one for row in groups for one in row["examples"]})
    metrics = {"event_time_given": read, "event_time_wrong": wrong, "event_time_examples": SEPARATOR.join(examples)}
    if error := clash(metrics, "event_time", logs[0].time_unit, where=f"{place}.columns.event_time", settings=place):
        raise error
    kept = [row for row in groups if not row["reasons"]]
    return reasons, counted((row["flaws"], row["rows"], row["example"], row["source_file"]) for row in kept)


def _group_metrics() -> list[Column]:
    from pyspark.sql import functions as F

    times = F.array_compact(F.array(F.min("wrong_time"), F.max("wrong_time")))
    return [
        F.count("*").alias("rows"),
        example_of(F.col("raw")).alias("example"),
        F.count("wrong_time").alias("wrong"),
        times.alias("examples"),
    ]


def once(rows: DataFrame) -> DataFrame:
    """Each event_id once.

    Of several rows the newest event_time wins, then the converted one, then the greatest in the other columns in order.
    """
    from pyspark.sql import functions as F

    first = ("event_id", "event_time", "converted")
    # Maps have no order.
    order = [
        F.to_json(name) if kind.startswith("map<") else F.col(name) for name, kind in rows.dtypes if name not in first
    ]
    best = F.max_by(F.struct(*rows.columns), F.struct("event_time", "converted", *order))
    return rows.groupBy("event_id").agg(best.alias("row")).select("row.*")


def _read(
    spark: SparkSession,
    folder: StoragePath,
    log: LogSettings,
    files: list[RawFile],
    cohorts: Mapping[str, str],
    where: str,
    say: Callable[[str], None],
) -> DataFrame:
    from pyspark.errors import AnalysisException, ParseException
    from pyspark.sql import functions as F

    described = contract("exposures")
    if unknown := sorted(set(log.columns) - set(described.names)):
        raise SettingsError(f"{where}.columns has {', '.join(unknown)}; there are {', '.join(described.names)}")
    frame = raw_rows(spark, folder, files, log)
    fields = [name.removeprefix("f_") for name in frame.columns if name.startswith("f_")]
    theirs = {name: name for name in described.names if log.by_name and name in fields} | log.columns
    if missing := [name for name in NEEDED if name not in theirs]:
        absent = "the files have no column" if log.by_name else "by_name is false, so the files give no"
        raise SettingsError(
            f"{where}: {absent} {', '.join(missing)}, and {where}.columns does not map it; "
            f"the files have {shown_names(fields)}"
        )
    if by_name := [name for name in theirs if name not in log.columns]:
        say(f"{where}: read by their names: {shown_names(by_name)} (by_name: false reads only what columns lists)")
    named = frame.select(
        *[F.col(quoted(f"f_{name}")).alias(name) for name in fields],
        *[F.col(name).alias(f"_{name}") for name in ("raw", "malformed", "source_file")],
    )
    if log.where is not None:
        condition = F.col("_malformed") | F.coalesce(value_of(log.where, [], f"{where}.where"), F.lit(False))
        check_fits(named, condition, f"{where}.where", log.where, fields)
        named = named.where(condition)
    columns = {}
    for ours, one in theirs.items():
        columns[ours] = value_of(one, fields, f"{where}.columns.{ours}")
        check_fits(named, columns[ours], f"{where}.columns.{ours}", one, fields)
    kinds = dict(named.select(*[column.alias(ours) for ours, column in columns.items()]).dtypes)
    raw = named.select(
        *[
            F.when(~F.col("_malformed"), _text(name, columns[name], kinds[name])).alias(name)
            if name in columns
            else F.lit(None).cast("string").alias(name)
            for name in described.names
        ],
        F.col("_raw").alias("raw"),
        F.col("_malformed").alias("malformed"),
        F.col("_source_file").alias("source_file"),
    )
    checked = check_rows(_typed(raw, log), described.row_rules)
    try:
        return checked.select(
            *described.names,
            *[F.expr(by).cast("string").alias(f"cohort_{name}") for name, by in cohorts.items()],
            "reasons",
            "flaws",
            F.when(F.size("reasons") + F.size("flaws") > 0, F.col("raw")).alias("raw"),
            F.when(F.exists("reasons", lambda reason: reason.startswith("event_time ")), F.col("raw_event_time")).alias(
                "wrong_time"
            ),
            "source_file",
        )
    except (AnalysisException, ParseException) as error:
        raise SettingsError(
            f"cohorts: an expression does not fit the columns of exposures ({reason(error)}); there are "
            f"{', '.join(described.names)}, and context['key']"
        ) from None


def _text(name: str, column: Column, kind: str) -> Column:
    """The value of the field ``name`` as text, blank as null; maps and structs as JSON."""
    from pyspark.sql import functions as F

    if kind.startswith(("map<", "struct<")):
        return blank_as_null(F.to_json(column))
    return blank_as_null(id_text(column, kind) if name in ("item_id", "user_id") else column.cast("string"))


def _typed(raw: DataFrame, log: LogSettings) -> DataFrame:
    """Text into the types of exposures, null where it cannot be read; ``raw_<column>`` keeps what it was."""
    from pyspark.sql import functions as F

    typed = raw.select(
        "event_id",
        plain_id("user_id").alias("user_id"),
        plain_id("item_id").alias("item_id"),
        moment("event_time", log.time_unit, log.time_formats).alias("event_time"),
        "arm",
        F.expr(f"try_cast(regexp_replace(position, '[.]0+$', '') as int) + {1 - log.first_position}").alias("position"),
        F.from_json("context", "map<string,string>").alias("context"),
        F.expr("try_cast(regexp_replace(converted, '[.]0+$', '') as boolean)").alias("converted"),
        F.expr("try_cast(revenue as double)").alias("revenue"),
        F.expr("coalesce(try_cast(weight as double), if(weight is null, 1d, null))").alias("weight"),
        "request_id",
        "raw",
        "malformed",
        "source_file",
        *[F.col(name).alias(f"raw_{name}") for name in ("event_time", "position", "context", "revenue", "weight")],
    )
    parts = [F.coalesce(F.col(name).cast("string"), F.lit("")) for name in ("user_id", "item_id")]
    parts.append(F.unix_micros("event_time").cast("string"))
    parts += [F.coalesce(F.col(name).cast("string"), F.lit("")) for name in ("arm", "position")]
    hashed = F.substring(F.sha2(F.concat_ws("\x1f", *parts), 256), 1, 32)
    return typed.withColumn("event_id", F.coalesce("event_id", hashed))
