"""The interface of a raw format: its files, and their rows as strings. Ingest types and checks them."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from learn_spark.core.storage.path import Entry, StoragePath, storage_path
from learn_spark.data.sources.listing import matching
from learn_spark.data.sources.location import LocationError, naming_the_store

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ITEM_COLUMNS = ("item_id", "title", "category", "brand", "price", "keywords", "attributes", "updated_at")
EVENT_COLUMNS = ("event_id", "user_id", "item_id", "event_type", "value", "event_time", "updated_at")
# The row as JSON; whether the line violates the format; its file, relative to the source's folder.
ROW_COLUMNS = ("raw", "malformed", "source_file")
TimeUnit = Literal["s", "ms", "us", "iso"]
FileKind = Literal["items", "events"]
_MARKERS = ("_SUCCESS", "_started_", "_committed_", "_metadata", "_common_metadata")
_WRITERS_FOLDERS = ("_delta_log", "_temporary", "__MACOSX")
_WHOLE_BYTES, _SAMPLES, _SAMPLE_BYTES = 1 << 20, 64, 4096
_AT_ONCE = 16  # requests


@dataclass(frozen=True)
class RawFile:
    """One file of a source and its kinds of rows. A Delta table counts as one file, identified by its version.

    ``name`` is the path relative to the source's folder; ``state`` changes with the content (``state_of``); ``size`` is
    in bytes, 0 for a table. ``since`` is the state that was read before, where only what is new after it is read.
    """

    path: StoragePath
    name: str
    kinds: frozenset[FileKind]
    state: str
    size: int = 0
    since: str | None = None

    @property
    def is_table(self) -> bool:
        """Whether it is a Delta table."""
        return self.state.startswith("version:")

    @property
    def is_partition(self) -> bool:
        """Whether it is a range of a topic's partition."""
        return self.state.startswith("offsets:")

    @property
    def is_whole(self) -> bool:
        """Whether all rows that it ever had are read, and not only those that are new or still there."""
        return self.since is None and not self.is_partition


class UnreadableFileError(LocationError):
    """A file that violates its format as a whole: a wrong header, a broken archive."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name, self.why = name, why


class Source(Protocol):
    """One raw format.

    ``items`` gives ITEM_COLUMNS and ``events`` EVENT_COLUMNS, all strings, null where the source has none; both also
    give ROW_COLUMNS. Times are in ``time_unit``. ``files`` are some of those that ``files()`` returned, at least one.
    Both raise UnreadableFileError for a file that violates the format.
    """

    @property
    def time_unit(self) -> TimeUnit:
        """Unit of event_time and updated_at; ``iso`` is ISO 8601, UTC unless it names a zone."""
        ...

    def files(self, folder: StoragePath) -> list[RawFile]:
        """All files. Raises LocationError where a required one is missing."""
        ...

    def items(self, spark: SparkSession, folder: StoragePath, files: Sequence[RawFile]) -> DataFrame:
        """The items of these files."""
        ...

    def events(self, spark: SparkSession, folder: StoragePath, files: Sequence[RawFile]) -> DataFrame:
        """The events of these files."""
        ...


def raw_file(folder: StoragePath, entry: Entry, kinds: Iterable[FileKind]) -> RawFile:
    """The file at ``entry`` below ``folder``; at an address its state costs a request."""
    return RawFile(entry.path, entry.path[len(folder) + 1 :], frozenset(kinds), state_of(entry), entry.size)


def state_of(entry: Entry) -> str:
    """Size and what else changes with a file's content.

    In an object store this is its ETag. Elsewhere it is the time of the last change and a checksum, of a large file of
    samples of it: tools may keep the time of what they change.
    """
    if tag := entry.path.content_tag():
        return f"{entry.size}:etag:{tag}"
    return f"{entry.size}:{entry.changed_ns}:{_checksum(entry.path, entry.size)}"


def _checksum(path: StoragePath, size: int) -> str:
    """CRC-32 of the whole file up to 1 MiB, of 64 pieces of it beyond."""
    checksum, pieces = 0, _SAMPLES if size > _WHOLE_BYTES else 1
    try:
        with path.open(_SAMPLE_BYTES if pieces > 1 else max(size, 1)) as stream:
            for piece in range(pieces):
                stream.seek(piece * (size - _SAMPLE_BYTES) // (pieces - 1) if pieces > 1 else 0)
                checksum = zlib.crc32(stream.read(_SAMPLE_BYTES if pieces > 1 else size), checksum)
    except OSError:
        return "unread"
    return f"{checksum:08x}"


def is_hidden(name: str) -> bool:
    """Whether the file of this name, relative to the source's folder, is no data: of a system (.x.crc, ._x) or of a
    writer (_SUCCESS, _delta_log/x). Spark passes over further files whose names begin with _ (``check_names``).
    """
    *folders, name = name.split("/")
    return (
        name.startswith(".")
        or name.startswith(_MARKERS)
        or name.endswith("._COPYING_")
        or any(part.startswith(".") or part in _WRITERS_FOLDERS for part in folders)
    )


def check_names(files: Iterable[RawFile]) -> None:
    """Raise UnreadableFileError for a file that Spark passes over without a word."""
    for file in files:
        is_file = not file.is_table and not file.is_partition
        if is_file and file.path.name.startswith("_") and "=" not in file.path.name:
            raise UnreadableFileError(
                file.name,
                "Spark does not read files whose names begin with _: rename it, or leave it out of the pattern",
            )


def find_files(
    folder: StoragePath, pattern: str, kinds: Iterable[FileKind], *, optional: bool = False
) -> list[RawFile]:
    """Files below ``folder`` that match a glob ``pattern``, in the order of their names.

    Raises LocationError where there is none (unless ``optional``), where the pattern leads out of the folder, and where
    the store of an address does not answer.
    """
    root = storage_path(folder)
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts or StoragePath(pattern).scheme:
        raise LocationError(f"source.path: there is no {pattern} in {folder}: it leads out of the folder")
    with naming_the_store(root):
        entries = [entry for entry in matching(root, pattern) if not is_hidden(entry.path[len(root) + 1 :])]
        if not entries and not optional:
            raise LocationError(f"source.path: there is no {pattern} in {folder}")
        if root.is_local:
            return [raw_file(root, entry, kinds) for entry in entries]
        # Each is a request, which takes longer than what it moves.
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            return list(threads.map(lambda entry: raw_file(root, entry, kinds), entries))


def of_kind(files: Iterable[RawFile], kind: FileKind) -> list[RawFile]:
    """Those files that have items, or events."""
    return [file for file in files if kind in file.kinds]
