"""The interface of a raw format: its files, and their rows as strings. Ingest types and checks them."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from learn_spark.data.sources.location import LocationError

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


@dataclass(frozen=True)
class RawFile:
    """One file of a source and its kinds of rows. A Delta table counts as one file, identified by its version.

    ``name`` is the path relative to the source's folder; ``state`` changes with the content (``raw_file``).
    """

    path: Path
    name: str
    kinds: frozenset[FileKind]
    state: str


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

    def files(self, folder: Path) -> list[RawFile]:
        """All files. Raises LocationError where a required one is missing."""
        ...

    def items(self, spark: SparkSession, folder: Path, files: Sequence[RawFile]) -> DataFrame:
        """The items of these files."""
        ...

    def events(self, spark: SparkSession, folder: Path, files: Sequence[RawFile]) -> DataFrame:
        """The events of these files."""
        ...


def raw_file(folder: Path, path: Path, kinds: Iterable[FileKind]) -> RawFile:
    """A file by its path. Its state is size, modification time and a checksum, of a large file of samples of it."""
    stat = path.stat()
    name = path.relative_to(folder).as_posix()
    checksum = _checksum(path, stat.st_size)
    return RawFile(path, name, frozenset(kinds), f"{stat.st_size}:{stat.st_mtime_ns}:{checksum}")


def _checksum(path: Path, size: int) -> str:
    """CRC-32 of the whole file up to 1 MiB, of 64 pieces of it beyond: tools may keep the time of what they change."""
    checksum, pieces = 0, _SAMPLES if size > _WHOLE_BYTES else 1
    try:
        with path.open("rb") as stream:
            for piece in range(pieces):
                stream.seek(piece * (size - _SAMPLE_BYTES) // (pieces - 1) if pieces > 1 else 0)
                checksum = zlib.crc32(stream.read(_SAMPLE_BYTES if pieces > 1 else size), checksum)
    except OSError:
        return "unread"
    return f"{checksum:08x}"


def is_hidden(path: Path) -> bool:
    """Whether this path, relative to the source's folder, is no data: of a system (.x.crc, ._x) or of a writer
    (_SUCCESS, _delta_log/x). Spark passes over further files whose names begin with _ (``check_names``).
    """
    folders, name = path.parts[:-1], path.name
    return (
        name.startswith(".")
        or name.startswith(_MARKERS)
        or name.endswith("._COPYING_")
        or any(part.startswith(".") or part in _WRITERS_FOLDERS for part in folders)
    )


def check_names(files: Iterable[RawFile]) -> None:
    """Raise UnreadableFileError for a file that Spark passes over without a word."""
    for file in files:
        if file.path.name.startswith("_") and "=" not in file.path.name and file.path.is_file():
            raise UnreadableFileError(
                file.name,
                "Spark does not read files whose names begin with _: rename it, or leave it out of the pattern",
            )


def find_files(folder: Path, pattern: str, kinds: Iterable[FileKind], *, optional: bool = False) -> list[RawFile]:
    """Files below ``folder`` that match a glob ``pattern``, in the order of their names.

    Raises LocationError where there is none (unless ``optional``), or where the pattern leads out of the folder.
    """
    root = folder.resolve()
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise LocationError(f"source.path: there is no {pattern} in {folder}: it leads out of the folder")
    paths = sorted(path for path in root.glob(pattern) if path.is_file() and not is_hidden(path.relative_to(root)))
    if not paths and not optional:
        raise LocationError(f"source.path: there is no {pattern} in {folder}")
    return [raw_file(root, path, kinds) for path in paths]


def of_kind(files: Iterable[RawFile], kind: FileKind) -> list[RawFile]:
    """Those files that have items, or events."""
    return [file for file in files if kind in file.kinds]
