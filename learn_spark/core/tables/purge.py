"""Deletes all that a table was: after it, its files and its log have the rows of the newest version and no others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from learn_spark.core.storage.path import StoragePath, storage_path
from learn_spark.core.tables.leases import require_leases
from learn_spark.core.tables.log import forget_log
from learn_spark.core.tables.snapshot import Snapshot, current_version

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_LOG = "_delta_log"
_LAST = "_last_checkpoint"


def old_files(path: str) -> list[StoragePath]:
    """The files of a table that only older versions need: data, changes, commits, checkpoints and checksums of them.

    In the order in which they are deleted: the log, by which the rest is found again, is last.
    """
    place, version = storage_path(path), current_version(path)
    if version is None:
        return []
    kept = {file.rsplit("/", 1)[-1] for file in Snapshot.open(path, version).files}
    old = [entry.path for entry in place.files() if not _is_kept(entry.path.removeprefix(place), kept, version)]
    return sorted(old, key=lambda file: (file.startswith(f"{place}/{_LOG}/"), file))


def _is_kept(below: str, kept: set[str], version: int) -> bool:
    folder, _, name = below.strip("/").rpartition("/")
    # Hadoop writes the checksum of part.parquet as .part.parquet.crc.
    name = name.removeprefix(".").removesuffix(".crc") if name.startswith(".") and name.endswith(".crc") else name
    if folder == _LOG:
        return name == _LAST or name.startswith(f"{version:020d}.")
    return folder == "" and name in kept


def purge(spark: SparkSession, path: str) -> int:
    """Delete ``old_files`` of a table after a checkpoint of its newest version, from which its log can be read then.

    Versions before it cannot be read any more, nor can changes. Nobody else may use the table meanwhile. A killed call
    is to be repeated. Returns the number of deleted files.
    """
    place, version = storage_path(path), current_version(path)
    if version is None:
        return 0
    require_leases(place)
    log = _log_of(spark, place)
    log.checkpoint()
    _shorten(place / _LOG / f"{version:020d}.json")
    old = old_files(place)
    for file in old:
        file.remove()
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # type: ignore[union-attr]
    forget_log(place)
    return len(old)


def _log_of(spark: SparkSession, place: StoragePath):  # type: ignore[no-untyped-def]  # a Java object
    delta = spark._jvm.org.apache.spark.sql.delta.DeltaLog  # type: ignore[union-attr]
    # Of a log that was read before, the session would write the checkpoint of an older version.
    delta.clearCache()
    return delta.forTable(spark._jsparkSession, place.spark)


def _shorten(commit: StoragePath) -> None:
    """Leave of a commit that a checkpoint has what describes the table: conditions and removed files may name users."""
    lines = []
    for line in commit.read_text().splitlines():
        action = json.loads(line)
        if "commitInfo" in action:
            given = action["commitInfo"].get("operationParameters") or {}
            action["commitInfo"]["operationParameters"] = {key: given[key] for key in ("mode",) if key in given}
        elif "remove" in action or "cdc" in action:
            continue
        lines.append(json.dumps(action, separators=(",", ":")))
    checksum = commit.parent / f".{commit.name}.crc"
    if commit.is_local and checksum.is_file():
        checksum.remove()
    commit.write_text("\n".join(lines) + "\n")
