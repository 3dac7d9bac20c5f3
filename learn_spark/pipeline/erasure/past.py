"""What older versions of a table have of users: in files, in changes, and in statistics and conditions of the log."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.mentions import mentions, mentions_in_parts
from learn_spark.core.tables.purge import old_files
from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.erasure.ids import COLUMN

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_LOG = "/_delta_log/"
_STATISTIC = 32  # characters of a text in the statistics of a log


@dataclass(frozen=True)
class Past:
    """The users ``ids`` (column user_id) in what the newest versions of tables do not need."""

    spark: SparkSession
    workspace: Workspace
    ids: DataFrame

    def has_some(self, table: str) -> bool:
        """Whether something of older versions names one of the users."""
        files = old_files(self.workspace.table(table))
        data = [file for file in files if file.endswith(".parquet") and _LOG not in file]
        commits = [file for file in files if file.endswith(".json") and _LOG in file]
        checkpoints = [file for file in files if file.endswith(".parquet") and _LOG in file]
        if data and self._data_has_some(table, data):
            return True
        if COLUMN not in contract(table).names:
            return False
        log = self.workspace.table(table) / "_delta_log"
        commits += [log / name for name in log.names() if name.endswith(".json") and log / name not in commits]
        lines = self.spark.read.text(_paths(commits))
        if checkpoints:
            added = self.spark.read.schema("add struct<stats: string>").parquet(*_paths(checkpoints))
            lines = lines.unionByName(added.selectExpr("add.stats as value"))
        return self._log_has_some(lines)

    def _data_has_some(self, table: str, files: Iterable[StoragePath]) -> bool:
        from pyspark.sql import functions as F

        if COLUMN in contract(table).names:
            rows = self.spark.read.schema(f"{COLUMN} string").parquet(*_paths(files))
            return not rows.join(self.ids, COLUMN, "left_semi").isEmpty()
        rows = self.spark.read.schema("raw string, parsed string").parquet(*_paths(files))
        text = rows.select(F.concat_ws(" ", "raw", "parsed").alias("text"))
        named = mentions(text, "text", F.lit(None).cast("string"), self._words())
        return not named.unionByName(mentions_in_parts(text, "text", self._words())).isEmpty()

    def _log_has_some(self, lines: DataFrame) -> bool:
        """Commits and statistics: a short number only as the least or greatest user of a file."""
        from pyspark.sql import functions as F

        statistics = F.coalesce(F.get_json_object("value", "$.add.stats"), F.col("value"))
        ends = [F.get_json_object(statistics, f"$.{end}Values.{COLUMN}") for end in ("min", "max")]
        found = lines.select(F.explode(F.array(*ends)).alias("end"))
        begin = found.select(F.substring("end", 1, _STATISTIC).alias("begin"))
        users = self.ids.select(F.substring(COLUMN, 1, _STATISTIC).alias("begin"))
        if not begin.join(users, "begin", "left_semi").isEmpty():
            return True
        named = mentions(lines, "value", F.lit(""), self._words())
        return not named.unionByName(mentions_in_parts(lines, "value", self._words())).isEmpty()

    def _words(self) -> DataFrame:
        return self.ids.withColumnRenamed(COLUMN, "word")


def _paths(files: Iterable[StoragePath]) -> list[str]:
    # Spark takes these characters of a path for patterns.
    return [re.sub(r"([\[\]{}*?\\])", r"\\\1", file.spark) for file in files]
