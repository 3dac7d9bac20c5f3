"""The rows of users in tables: which tables have them, how many, and their deletion by Spark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from learn_spark.core.settings import Settings
from learn_spark.core.settings.source import described_files
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import all_tables, contract
from learn_spark.core.tables.mentions import mentions, mentions_in_parts
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.erasure.ids import COLUMN
from learn_spark.pipeline.erasure.past import Past

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

QUARANTINE = "quarantine"
# Tables of bookkeeping with texts that may name a user: the columns that are replaced.
TEXTS = {"runs": "message", "releases": "note", "raw_files": "error"}
REPLACED = "(removed by learn-spark erase: it named an erased user)"
# Fields of raw rows with the user, of the known formats.
_USER_FIELDS = (COLUMN, "user_id:token", "userId", "reviewerID", "household_id", "CustomerID")


def user_tables() -> list[str]:
    """Tables with a column user_id, by their contracts."""
    return [table for table in all_tables() if COLUMN in contract(table).names]


@dataclass(frozen=True)
class Found:
    """What tables have of the users: rows by table, and tables of which older versions alone have some.

    ``known``: how many of the ids some table has.
    """

    rows: Mapping[str, int]
    older: tuple[str, ...]
    known: int

    @property
    def tables(self) -> list[str]:
        """The tables that must be rewritten."""
        return sorted({table for table, rows in self.rows.items() if rows} | set(self.older))


@dataclass(frozen=True)
class UsersInTables:
    """The users ``ids`` (column user_id, each once) in the tables of a workspace.

    ``versions``: table -> version whose rows stay, where that is not the newest.
    """

    spark: SparkSession
    workspace: Workspace
    settings: Settings
    ids: DataFrame
    scratch: StoragePath
    versions: Mapping[str, int] = field(default_factory=dict)

    def find(self) -> Found:
        """Count the rows, by one pass over the users of each table."""
        from functools import reduce

        from pyspark.sql import functions as F

        existing = [t for t in user_tables() if current_version(self.workspace.table(t)) is not None]
        parts = [
            self._rows(table)
            .select(COLUMN)
            .join(self.ids, COLUMN, "left_semi")
            .groupBy(COLUMN)
            .agg(F.count("*").alias("rows"))
            .withColumn("table", F.lit(table))
            for table in existing
        ]
        if (refused := self._refused()) is not None:
            parts.append(
                refused.agg(F.count("*").alias("rows")).select(
                    F.lit(None).cast("string").alias(COLUMN), "rows", F.lit(QUARANTINE).alias("table")
                )
            )
        if not parts:
            return Found({}, (), 0)
        counted = reduce(lambda a, b: a.unionByName(b), parts).persist()
        try:
            rows = {
                row["table"]: row["rows"] for row in counted.groupBy("table").agg(F.sum("rows").alias("rows")).collect()
            }
            known = counted.select(F.count_distinct(COLUMN).alias("known")).first()
        finally:
            counted.unpersist()
        with_refused = [*existing, *([QUARANTINE] if refused is not None else [])]
        past = Past(self.spark, self.workspace, self.ids)
        older = [table for table in with_refused if not rows.get(table) and past.has_some(table)]
        return Found({table: count for table, count in rows.items() if count}, tuple(older), known[0] if known else 0)

    def delete(self, table: str) -> None:
        """Delete the rows of a table with a column user_id in one commit, which names none; none where none is there.

        Where the rows that stay are of an older version, they become the newest.
        """
        path, described = self.workspace.table(table), contract(table)
        with delta.translated(described, path):
            if self.versions.get(table, current_version(path)) != current_version(path):
                kept = self._rows(table).join(self.ids, COLUMN, "left_anti")
                delta.overwrite(kept, path, described)
            else:
                merge = (
                    delta.delta_table(self.spark, path)
                    .alias("t")
                    .merge(self.ids.alias("s"), f"t.{COLUMN} = s.{COLUMN}")
                )
                merge.whenMatchedDelete().execute()

    def delete_refused(self) -> None:
        """Delete the rows of quarantine that name one of the users."""
        refused, path = self._refused(), self.workspace.table(QUARANTINE)
        if refused is None:
            return
        # Written to files, because the table that is read here changes below.
        at = (self.scratch / QUARANTINE).spark
        refused.write.mode("overwrite").parquet(at)
        keys = self.spark.read.schema("row_id string").parquet(at)
        with delta.translated(contract(QUARANTINE), path):
            merge = delta.delta_table(self.spark, path).alias("t").merge(keys.alias("s"), "t.row_id = s.row_id")
            merge.whenMatchedDelete().execute()

    def _rows(self, table: str) -> DataFrame:
        path = self.workspace.table(table)
        return delta.read(self.spark, path, self.versions.get(table))

    def _refused(self) -> DataFrame | None:
        """row_id of the rows of quarantine that name one of the users; None without the table."""
        from pyspark.sql import functions as F

        path = self.workspace.table(QUARANTINE)
        if current_version(path) is None:
            return None
        # A refused item or text has no user.
        rows = delta.read(self.spark, path).where("source_table not in ('items', 'item_text', 'text_embeddings')")
        parsed = F.get_json_object("parsed", f"$.{COLUMN}")
        word, user = self.ids.select(F.col(COLUMN).alias("word")), F.coalesce(parsed, _user_of_raw(self.settings))
        raw = mentions(rows, "raw", user, word).unionByName(mentions_in_parts(rows, "raw", word))
        named = rows.join(raw.withColumnRenamed("text", "raw"), "raw", "left_semi").select("row_id")
        typed = rows.withColumn(COLUMN, user).join(self.ids, COLUMN, "left_semi").select("row_id")
        return named.unionByName(typed).distinct()


def _user_of_raw(settings: Settings) -> Column:
    """The user of a raw row by the fields that the settings and the known formats name; null without one."""
    from pyspark.sql import functions as F

    from learn_spark.data.sources.typed_rows import plain_text

    named = [files.columns.get(COLUMN) for files in described_files(settings.source)]
    named += [log.columns.get(COLUMN) for log in getattr(settings.exposures, "logs", [])]
    fields = dict.fromkeys([*(name for name in named if name and "'" not in name), *_USER_FIELDS])
    value = F.get_json_object("raw", "$.value")  # of a message of Kafka
    return plain_text(
        F.coalesce(*(F.get_json_object(row, f"$['{name}']") for name in fields for row in ("raw", value)))
    )
