"""Keeps a table quick to read: many small files as few, and a checkpoint of its log."""

from __future__ import annotations

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from learn_spark.core.tables.create import COMMITS_OF_A_CHECKPOINT
from learn_spark.core.tables.log import MOST_FILES
from learn_spark.core.tables.log_files import commits_to_read
from learn_spark.core.tables.snapshot import open_table

_MOST_SMALL_FILES, _SMALL_FILE, _LARGE_FILE = 32, 16 << 20, 128 << 20  # of an appended table; bytes


def maintain(path: str) -> None:
    """Write a table of many files as few, and a checkpoint of its log; nothing if there is no table.

    Commits before the checkpoint are deleted when they are 30 days old (``delta.logRetentionDuration``). Only for
    tables of ``GROWING``, which learn_spark.core.tables.log alone writes, and of which no older version is read.
    """
    if (table := _existing(path)) is None:
        return
    if len(table.file_uris()) > MOST_FILES:
        table.optimize.compact()
    table.create_checkpoint()
    table.cleanup_metadata()


def compact(path: str) -> None:
    """Write the small files of a table as few, where there are many; nothing if there is no table.

    The new version has the same rows. Stages that read it run again, so that this is not done for a few files.
    """
    if (table := _existing(path)) is None:
        return
    sizes = pa.table(table.get_add_actions())["size_bytes"].to_pylist()
    if sum(size < _SMALL_FILE for size in sizes) > _MOST_SMALL_FILES:
        table.optimize.compact(target_size=_LARGE_FILE)


def checkpoint(path: str) -> None:
    """Write a checkpoint of a table's log where the last is many commits ago; nothing if there is no table.

    That is no new version. Tables of earlier versions of learn-spark have one every 100 commits.
    """
    if commits_to_read(path) > COMMITS_OF_A_CHECKPOINT:
        open_table(path).create_checkpoint()


def _existing(path: str) -> DeltaTable | None:
    try:
        return open_table(path)
    except TableNotFoundError:
        return None
