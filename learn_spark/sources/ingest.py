"""The ingest stage: raw files into items, item_index and interactions; refused rows into quarantine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from learn_spark.errors import LearnSparkError
from learn_spark.pipeline.stage import StageContext, StageResult
from learn_spark.quality.quarantine import quarantine
from learn_spark.quality.rows import RowRule, judge
from learn_spark.settings.schema import Settings
from learn_spark.sources.location import files_fingerprint, resolve
from learn_spark.sources.source import TimeUnit, source
from learn_spark.tables import delta
from learn_spark.tables.contracts import contract
from learn_spark.tables.workspace import Workspace

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

EARLIEST = "1990-01-01"
_MICROS: dict[TimeUnit, int] = {"s": 1_000_000, "ms": 1_000, "us": 1}


class CountsDoNotAddUp(LearnSparkError):
    """Rows in differ from rows accepted, refused and duplicate: something was lost."""


@dataclass(frozen=True)
class Tally:
    """Where the rows of one raw table went."""

    read: int
    accepted: int
    refused: int
    duplicates: int

    def check(self, table: str) -> None:
        """CountsDoNotAddUp unless every row read is accounted for."""
        total = self.accepted + self.refused + self.duplicates
        if total != self.read:
            raise CountsDoNotAddUp(
                f"{table}: {self.read:,} rows were read, but {self.accepted:,} accepted + {self.refused:,} refused + "
                f"{self.duplicates:,} duplicates = {total:,}"
            )


def other_inputs(settings: Settings, workspace: Workspace) -> dict[str, str]:
    """The raw files, by names, sizes and times of change."""
    folder = resolve(settings.source.path)
    return {f"files:{settings.source.path}": files_fingerprint(source(settings.source).files(folder))}


def run(context: StageContext) -> StageResult:
    """Read the source, judge its rows, and bring the tables up to it."""
    raw = source(context.settings.source).read(context.spark, resolve(context.settings.source.path))
    items = _ingest_items(context, raw.items)
    _extend_index(context)
    events = _ingest_events(context, raw.events, raw.time_unit)
    return StageResult(
        rows_in=items.read + events.read,
        rows_out=items.accepted + events.accepted,
        refused=items.refused + events.refused,
        counts={
            "items": items.accepted,
            "interactions": events.accepted,
            "duplicates": items.duplicates + events.duplicates,
        },
    )


def _ingest_items(context: StageContext, raw: DataFrame) -> Tally:
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    typed = raw.select(
        *(F.col(c) for c in ("item_id", "title", "category", "brand", "keywords", "attributes", "raw", "malformed")),
        F.expr("try_cast(price as double)").alias("price"),
        F.expr("try_to_timestamp(updated_at)").alias("updated_at"),
        F.col("price").alias("raw_price"),
        F.col("updated_at").alias("raw_updated_at"),
    )
    rules = [
        RowRule("malformed line", F.col("malformed")),
        RowRule("no item_id", ~F.col("malformed") & F.col("item_id").isNull()),
        RowRule("price is not a number", F.col("raw_price").isNotNull() & ~_finite("price")),
        RowRule("price is negative", F.col("price") < 0),
        RowRule("updated_at is not a time", F.col("raw_updated_at").isNotNull() & F.col("updated_at").isNull()),
        RowRule("not UTF-8", F.col("raw").contains("\ufffd")),
    ]
    judged = judge(typed, rules).persist()
    try:
        good = judged.where(F.size("reasons") == 0)
        # Two deliveries of an item: the newest wins; without times the greatest row does, so that the order of
        # arrival decides nothing.
        names = contract("items").names
        newest = Window.partitionBy("item_id").orderBy(
            F.col("updated_at").desc_nulls_last(), *[F.col(n).desc_nulls_last() for n in names if n != "updated_at"]
        )
        chosen = good.withColumn("place", F.row_number().over(newest)).where("place = 1").select(*names)
        tally = _tally(raw, judged, chosen)
        tally.check("items")
        _keep_refused(context, judged, "items")
        different = " or ".join(f"not (t.{n} <=> s.{n})" for n in names if n != "item_id")
        newer = "(t.updated_at is null or s.updated_at >= t.updated_at)"
        delta.merge(chosen, context.path("items"), contract("items"), update_when=f"{newer} and ({different})")
        _check_landed(context, chosen, "items", tally)
    finally:
        judged.unpersist()
    return tally


def _extend_index(context: StageContext) -> None:
    """Give every item without an index the next free one, in the order of item_id."""
    from pyspark.sql import functions as F

    spark, path = context.spark, context.path("item_index")
    delta.create_if_missing(spark, path, contract("item_index"))
    known = delta.read(spark, path)
    last = known.agg(F.coalesce(F.max("item_index"), F.lit(0))).first()
    new = delta.read(spark, context.path("items")).select("item_id").join(known, "item_id", "left_anti")
    new = new.repartitionByRange(context.settings.spark.shuffle_partitions, "item_id").sortWithinPartitions("item_id")
    new = new.persist()
    try:
        if new.isEmpty():
            return
        # zipWithIndex numbers partitions in order without bringing all ids into one of them, as a window would.
        start = (last[0] if last else 0) + 1
        numbered = new.rdd.zipWithIndex().map(lambda pair: (pair[0][0], pair[1] + start))
        frame = spark.createDataFrame(numbered, contract("item_index").spark_schema())
        delta.append(frame, path, contract("item_index"))
    finally:
        new.unpersist()


def _ingest_events(context: StageContext, raw: DataFrame, unit: TimeUnit) -> Tally:
    from pyspark.sql import functions as F

    typed = raw.select(
        *(F.col(c) for c in ("event_id", "user_id", "item_id", "event_type", "raw", "malformed")),
        F.expr("try_cast(value as double)").alias("value"),
        F.col("value").alias("raw_value"),
        _event_time(unit).alias("event_time"),
    )
    items = delta.read(context.spark, context.path("items")).select("item_id", F.lit(True).alias("known"))
    typed = typed.join(items, "item_id", "left")
    whole = ~F.col("malformed")
    rules = [
        RowRule("malformed line", F.col("malformed")),
        RowRule("no user_id", whole & F.col("user_id").isNull()),
        RowRule("no item_id", whole & F.col("item_id").isNull()),
        RowRule("unknown item", whole & F.col("item_id").isNotNull() & F.col("known").isNull()),
        RowRule("value is not a number", whole & F.col("raw_value").isNotNull() & ~_finite("value")),
        RowRule("no event_time", whole & F.col("event_time").isNull()),
        RowRule(f"event_time before {EARLIEST}", F.col("event_time") < F.lit(EARLIEST).cast("timestamp")),
        RowRule("event_time in the future", F.col("event_time") > F.expr("current_timestamp() + interval 1 day")),
        RowRule("not UTF-8", F.col("raw").contains("\ufffd")),
    ]
    judged = judge(typed, rules).persist()
    try:
        good = judged.where(F.size("reasons") == 0)
        parts = [
            F.col("user_id"),
            F.col("item_id"),
            F.col("event_type"),
            F.coalesce(F.col("value").cast("string"), F.lit("")),
            F.unix_micros("event_time"),
        ]
        hashed = F.substring(F.sha2(F.concat_ws("\x1f", *parts), 256), 1, 32)
        shaped = good.select(
            F.coalesce("event_id", hashed).alias("event_id"),
            "user_id",
            "item_id",
            "event_type",
            "value",
            "event_time",
            F.to_date("event_time").alias("event_date"),
        )
        chosen = shaped.dropDuplicates(["event_id"])
        tally = _tally(raw, judged, chosen)
        tally.check("interactions")
        _keep_refused(context, judged, "interactions")
        delta.merge(chosen, context.path("interactions"), contract("interactions"))
        _check_landed(context, chosen, "interactions", tally)
    finally:
        judged.unpersist()
    return tally


def _event_time(unit: TimeUnit) -> Column:
    """The raw event_time as a timestamp (UTC); null where it is none, or beyond what a timestamp holds."""
    from pyspark.sql import functions as F

    if unit == "iso":
        return F.expr("try_to_timestamp(event_time)")
    micros = F.expr("try_cast(event_time as double)") * _MICROS[unit]
    return F.when(micros.between(-(2**62), 2**62), F.timestamp_micros(micros.cast("bigint")))


def _finite(column: str) -> Column:
    from pyspark.sql import functions as F

    value = F.col(column)
    return F.coalesce(value.isNotNull() & ~F.isnan(value) & (F.abs(value) != float("inf")), F.lit(False))


def _tally(raw: DataFrame, judged: DataFrame, chosen: DataFrame) -> Tally:
    from pyspark.sql import functions as F

    judged_rows = judged.agg(F.count_if(F.size("reasons") == 0), F.count_if(F.size("reasons") > 0)).first()
    assert judged_rows is not None
    good, refused = judged_rows
    accepted = chosen.count()
    return Tally(read=raw.count(), accepted=accepted, refused=refused, duplicates=good - accepted)


def _check_landed(context: StageContext, chosen: DataFrame, table: str, tally: Tally) -> None:
    keys = contract(table).key
    landed = delta.read(context.spark, context.path(table)).join(chosen.select(*keys), keys, "left_semi").count()
    if landed != tally.accepted:
        raise CountsDoNotAddUp(
            f"{table}: {tally.accepted:,} rows were accepted, but {landed:,} of them are in the table"
        )


def _keep_refused(context: StageContext, judged: DataFrame, table: str) -> None:
    from pyspark.sql import functions as F

    refused = judged.where(F.size("reasons") > 0)
    quarantine(refused, context.path("quarantine"), source_table=table, run_id=context.run_id)
