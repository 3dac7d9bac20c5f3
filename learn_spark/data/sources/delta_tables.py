"""Delta tables as sources, by folder, address or name in a catalog: a version is a delivery.

Spark reads the rows, so that deletion vectors, column mapping and partitions are right.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from deltalake import DeltaTable

from learn_spark.core.causes import first_line
from learn_spark.core.storage.file_systems import StorageError
from learn_spark.core.storage.path import StoragePath, storage_path
from learn_spark.core.tables.reach import reach
from learn_spark.core.tables.snapshot import SnapshotError, current_version, open_version
from learn_spark.data.sources.location import LocationError, naming_the_store
from learn_spark.data.sources.source import FileKind, RawFile
from learn_spark.data.sources.wording import shown

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Session = Callable[[], "SparkSession"]
_NAME = re.compile(r"\w+(?:\.\w+){1,2}")
# Operations of commits whose changes are in the change feed, and of those that change no row.
_OF_ROWS = ("WRITE", "APPEND", "MERGE", "UPDATE", "DELETE", "STREAMING UPDATE")
_OF_FILES = ("OPTIMIZE", "REORG", "VACUUM START", "VACUUM END", "COMPUTE STATS")
# VACUUM removes the files of changes after a week, unless the table says otherwise.
_CHANGES_LIVE = timedelta(days=6)
_FEED_COLUMNS = ("_change_type", "_commit_version", "_commit_timestamp")
_FEED = "delta.enableChangeDataFeed"


def find_table(folder: StoragePath, named: str, kind: FileKind, session: Session | None) -> RawFile:
    """The newest version of a table: a folder below ``folder``, an address, or a name such as learn.orders.

    A folder of that name comes before a table of the catalog. Raises LocationError where there is none.
    """
    path = _path(storage_path(folder), named)
    version = _newest(path) if path is not None else None
    if version is None and session is not None and _NAME.fullmatch(named):
        path = _of_catalog(session(), named, storage_path(folder))
        version = _newest(path)
    if path is None or version is None:
        raise LocationError(f"source.path: there is no Delta table {named} in {folder}")
    return RawFile(path, named, frozenset([kind]), f"version:{version}")


def _newest(path: StoragePath) -> int | None:
    with naming_the_store(path):
        return current_version(path)


def _path(folder: StoragePath, named: str) -> StoragePath | None:
    """The path of a table inside ``folder``, or its address; None for what leads out of the folder."""
    try:
        if StoragePath(named).scheme:
            return storage_path(named, folder.s3)
    except StorageError as error:
        raise LocationError(f"source.path: {error}") from None
    return None if ".." in named.split("/") or named.startswith("/") else folder / named


def _of_catalog(spark: SparkSession, name: str, folder: StoragePath) -> StoragePath:
    """Where the table of this name lies. Raises LocationError where the catalog has none of format Delta."""
    try:
        detail = spark.sql("describe detail " + ".".join(f"`{part}`" for part in name.split("."))).first()
    except Exception as error:
        why = shown(first_line(error))
        raise LocationError(
            f"there is no Delta table {name}: no folder of this name in {folder}, and none in the catalog ({why})"
        ) from None
    if detail is None or detail["format"] != "delta":
        raise LocationError(f"{name} is a table of format {detail and detail['format']}, and not of Delta")
    path = storage_path(detail["location"], folder.s3)
    reach(spark, [path])
    return path


def version_of(state: str) -> int:
    """The version in a state of a table."""
    return int(state.removeprefix("version:"))


def has_changes_since(table: RawFile, earlier: str) -> bool:
    """Whether the change feed has every change of rows after the state ``earlier``.

    It has them if it was on all the time, the columns did not change, and VACUUM cannot have removed them yet.
    """
    first, last = version_of(earlier), version_of(table.state)
    if first >= last:
        return False
    try:
        then, now = open_version(table.path, first), open_version(table.path, last)
        commits = [one for one in now.history() if first <= int(one["version"]) <= last]
    except (SnapshotError, StorageError):
        return False
    if not all(_is_on(one) for one in (then, now)) or then.schema() != now.schema():
        return False
    if len(commits) != last - first + 1:
        return False
    later = [one for one in commits if int(one["version"]) > first]
    oldest = min(datetime.fromtimestamp(one["timestamp"] / 1000, UTC) for one in later)
    return datetime.now(UTC) - oldest < _CHANGES_LIVE and all(one["operation"] in _OF_ROWS + _OF_FILES for one in later)


def _is_on(table: DeltaTable) -> bool:
    return str(table.metadata().configuration.get(_FEED)).lower() == "true"


def read_table(spark: SparkSession, table: RawFile) -> DataFrame:
    """All rows of the table's version; with ``since``, those of them that were added or changed after that version.

    What a later version changed or deleted again is left out, as where all rows are read.
    """
    from pyspark.sql import functions as F

    reader, version = spark.read.format("delta"), version_of(table.state)
    if table.since is None:
        return reader.option("versionAsOf", version).load(table.path.spark)
    changes = reader.options(
        readChangeFeed="true", startingVersion=version_of(table.since) + 1, endingVersion=version
    ).load(table.path.spark)
    columns = [name for name in changes.columns if name not in _FEED_COLUMNS]
    content = F.to_json(F.struct(*columns), {"ignoreNullFields": "false"})
    came = F.when(F.col("_change_type").isin("insert", "update_postimage"), 1).otherwise(-1)
    rows = changes.groupBy(content).agg(
        F.sum(came).cast("int").alias("times"), F.first(F.struct(*columns)).alias("row")
    )
    return rows.where("times > 0").select(F.explode(F.array_repeat("row", F.col("times"))).alias("row")).select("row.*")
