"""The users whose histories must be rebuilt, by the change feed of interactions since the last run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from learn_spark.core.settings.load import fingerprint
from learn_spark.core.stages.context import StageContext
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.runs import last_done
from learn_spark.core.tables.snapshot import Snapshot, current_version
from learn_spark.data.histories.protocols import core

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# Above this share, rebuilding all users costs less than looking up rows.
LARGEST_SHARE = 0.3
# Merges add files; above this multiple, everything is rebuilt into few files.
MOST_FILES = 4


@dataclass(frozen=True)
class Changed:
    """The changed users: a frame with user_id, each once, and their number."""

    frame: DataFrame
    users: int


def changed_users(context: StageContext) -> Changed | None:
    """The users that changed since the last equal run; None where everything must be rebuilt.

    Everything is rebuilt where settings, code or the table changed, where a user's history depends on other users'
    events (a core), where many users changed, and where merges left many small files.
    """
    settings = context.settings.histories
    last = last_done(context.workspace, "histories")
    path = context.path("user_histories")
    if (
        last is None
        or context.forced
        or core(settings)
        or last.config_hash != fingerprint(context.settings, ("histories",))
        or last.code_version != context.code_version
        or last.outputs.get("user_histories") != str(current_version(path))
    ):
        return None
    since, now = int(last.inputs["interactions"]) + 1, int(context.inputs["interactions"])
    if now < since:
        return Changed(context.spark.createDataFrame([], "user_id string"), 0) if now == since - 1 else None
    snapshot = Snapshot.open(path)
    if len(snapshot.files) > MOST_FILES * max(1, math.ceil(snapshot.rows / settings.rows_per_file)):
        return None
    try:
        feed = (
            context.spark.read.format("delta")
            .option("readChangeFeed", "true")
            .option("startingVersion", since)
            .option("endingVersion", now)
            .load(context.path("interactions"))
            .select("user_id")
            .distinct()
        )
        users_path = f"file:{scratch(context) / 'users'}"
        feed.write.mode("overwrite").parquet(users_path)
    except Exception as error:
        # The feed needs old files of the table, which VACUUM removes.
        context.console.say(f"rebuilding all users, because the change feed cannot be read ({type(error).__name__})")
        return None
    users = context.spark.read.schema("user_id string").parquet(users_path)
    number = users.count()
    if number > LARGEST_SHARE * snapshot.rows:
        return None
    return Changed(users, number)


def replace_users(context: StageContext, rows: DataFrame, changed: Changed) -> None:
    """Replace the changed users' rows by their new rows, in one commit."""
    from delta.tables import DeltaTable

    path, table = context.path("user_histories"), contract("user_histories")
    rows_path = scratch(context) / "rows"
    conformed = delta.conform(rows, table)
    conformed.write.mode("overwrite").parquet(f"file:{rows_path}")
    new = context.spark.read.schema(table.spark_schema()).parquet(f"file:{rows_path}")
    old = delta.read(context.spark, path).join(changed.frame, "user_id", "left_semi")
    removed = old.join(new.select(*table.key), table.key, "left_anti")
    changes = new.withColumn("_gone", F.lit(False)).unionByName(removed.withColumn("_gone", F.lit(True)))
    same = " AND ".join(f"t.{key} = s.{key}" for key in table.key)
    values: dict[str, str | Column] = {name: f"s.{name}" for name in table.names}
    merge = DeltaTable.forPath(context.spark, path).alias("t").merge(changes.alias("s"), same)
    different = " or ".join(f"not (t.{name} <=> s.{name})" for name in table.names)
    merge = merge.whenMatchedDelete("s._gone").whenMatchedUpdate(different, values)
    with delta.translated(table):
        merge.whenNotMatchedInsert(values=values).execute()


def scratch(context: StageContext) -> Path:
    """A folder for this run; the stage removes it at its end."""
    return context.folder("cache", "histories", context.run_id)
