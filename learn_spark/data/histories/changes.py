"""The users whose histories must be rebuilt, by the change feed of interactions since the last run."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import functions as F

from learn_spark.core.causes import cause_of
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.load import fingerprint
from learn_spark.core.stages.context import StageContext
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.erased import Erasures
from learn_spark.core.tables.runs import last_done
from learn_spark.core.tables.snapshot import Snapshot, current_version, open_table
from learn_spark.data.histories.protocols import core

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# Above this share, rebuilding all users costs less than looking up rows.
LARGEST_SHARE = 0.3
# Merges add files; above this multiple, everything is rebuilt into few files.
MOST_FILES = 4
# Errors of deltalake where VACUUM removed files, or a clean-up of the log commits, that the feed needs. Any other may
# not come again.
_GONE = re.compile(r"Object at location .* not found|Invalid table version|No such file")


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
    ):
        return None
    # An erasure takes the same users out of both tables: what was up to date before it is so after it.
    erasures = Erasures(context.workspace)
    if erasures.now("user_histories", int(last.outputs.get("user_histories", -1))) != current_version(path):
        return None
    since = erasures.now("interactions", int(last.inputs["interactions"])) + 1
    now = int(context.inputs["interactions"])
    if now < since:
        return Changed(context.spark.createDataFrame([], "user_id string"), 0) if now == since - 1 else None
    snapshot = Snapshot.open(path)
    if len(snapshot.files) > MOST_FILES * max(1, math.ceil(snapshot.rows / settings.rows_per_file)):
        return None
    try:
        users = users_of_feed(context.path("interactions"), since, now)
    except Exception as error:
        if not _GONE.search(str(error)):
            raise LearnSparkError(
                f"histories: the changes of interactions from version {since} to {now} cannot be read: "
                f"{cause_of(error)}. Run histories again; --force rebuilds all users without them"
            ) from error
        context.console.say(f"rebuilding all users, because versions {since} to {now} of interactions are not all kept")
        return None
    if len(users) > LARGEST_SHARE * snapshot.rows:
        return None
    file = context.staging / "users.parquet"
    context.workspace.place.file_system.create_dir(context.staging.inner, recursive=True)
    pq.write_table(pa.table({"user_id": users}), file.inner, filesystem=file.file_system)
    return Changed(context.spark.read.schema("user_id string").parquet(file.spark), len(users))


def users_of_feed(path: str, first: int, last: int) -> pa.Array:
    """The users with an event that was added, changed or removed in these versions, each once.

    Read without Spark, which would load the table's log twice, in several jobs, before the first row.
    """
    users = pa.array([], pa.string())
    reader = open_table(path).load_cdf(starting_version=first, ending_version=last, columns=["user_id"])
    for batch in reader:
        # Its strings are views, which this Arrow does not read.
        column = pa.array(batch.column(0).cast(pa.string()))
        users = pc.unique(pa.concat_arrays([users, column]))
    return users


def replace_users(context: StageContext, rows: DataFrame | pa.Table, changed: Changed) -> None:
    """Replace the changed users' rows by their new rows, in one commit."""
    path, table = context.path("user_histories"), contract("user_histories")
    if isinstance(rows, pa.Table):
        some = rows.num_rows > 0
        new = context.spark.createDataFrame(rows) if some else delta.no_rows(context.spark, table.spark_schema())
    else:
        rows_path = (context.staging / "rows").spark
        delta.conform(rows, table).write.mode("overwrite").parquet(rows_path)
        new = context.spark.read.schema(table.spark_schema()).parquet(rows_path)
    old = delta.read(context.spark, path).join(changed.frame, "user_id", "left_semi")
    removed = old.join(new.select(*table.key), table.key, "left_anti")
    changes = new.withColumn("_gone", F.lit(False)).unionByName(removed.withColumn("_gone", F.lit(True)))
    same = " AND ".join(f"t.{key} = s.{key}" for key in table.key)
    values: dict[str, str | Column] = {name: f"s.{name}" for name in table.names}
    merge = delta.delta_table(context.spark, path).alias("t").merge(changes.alias("s"), same)
    different = " or ".join(f"not (t.{name} <=> s.{name})" for name in table.names)
    merge = merge.whenMatchedDelete("s._gone").whenMatchedUpdate(different, values)
    with delta.translated(table, path):
        merge.whenNotMatchedInsert(values=values).execute()
