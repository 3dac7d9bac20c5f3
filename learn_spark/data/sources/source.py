"""What a raw format gives: its files, and their rows as strings. Typing and judging them is ingest's work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from learn_spark.data.sources.location import LocationError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ITEM_COLUMNS = ("item_id", "title", "category", "brand", "price", "keywords", "attributes", "updated_at")
EVENT_COLUMNS = ("event_id", "user_id", "item_id", "event_type", "value", "event_time", "updated_at")
# The row as JSON; whether the line is not of the format at all; the file it stands in, relative to the source's folder.
ROW_COLUMNS = ("raw", "malformed", "source_file")
TimeUnit = Literal["s", "ms", "us", "iso"]
FileKind = Literal["items", "events"]


@dataclass(frozen=True)
class RawFile:
    """One file of a source and what stands in it. A Delta table counts as one file, told apart by its version.

    ``name`` is the path relative to the source's folder; ``state`` changes whenever the content does.
    """

    path: Path
    name: str
    kinds: frozenset[FileKind]
    state: str


class UnreadableFileError(LocationError):
    """A file that is not of its format at all: a wrong header, a broken archive."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name, self.why = name, why


class Source(Protocol):
    """One raw format.

    ``items`` gives ITEM_COLUMNS and ``events`` EVENT_COLUMNS, all strings, null where the source has none; both also
    give ROW_COLUMNS. Times are in ``time_unit``. ``files`` are some of those that ``files()`` named, never none;
    both raise UnreadableFileError for one that is not of the format.
    """

    @property
    def time_unit(self) -> TimeUnit:
        """Unit of event_time and updated_at; ``iso`` is ISO 8601, UTC unless it names a zone."""
        ...

    def files(self, folder: Path) -> list[RawFile]:
        """All files there are; LocationError where one that must be there is not."""
        ...

    def items(self, spark: SparkSession, folder: Path, files: Sequence[RawFile]) -> DataFrame:
        """The items of these files."""
        ...

    def events(self, spark: SparkSession, folder: Path, files: Sequence[RawFile]) -> DataFrame:
        """The events of these files."""
        ...


def raw_file(folder: Path, path: Path, kinds: Iterable[FileKind]) -> RawFile:
    """A file by its path; its state is its size and time of change, which costs nothing at any size."""
    stat = path.stat()
    name = path.relative_to(folder).as_posix()
    return RawFile(path, name, frozenset(kinds), f"{stat.st_size}:{stat.st_mtime_ns}")


def find_files(folder: Path, pattern: str, kinds: Iterable[FileKind], *, optional: bool = False) -> list[RawFile]:
    """Files below ``folder`` that match a glob ``pattern``, in the order of their names.

    LocationError where there is none (unless ``optional``), or where the pattern leads out of the folder.
    """
    root = folder.resolve()
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise LocationError(f"source.path: there is no {pattern} in {folder}: it leads out of the folder")
    found = sorted(path for path in root.glob(pattern) if path.is_file())
    if not found and not optional:
        raise LocationError(f"source.path: there is no {pattern} in {folder}")
    return [raw_file(root, path, kinds) for path in found]


def of_kind(files: Iterable[RawFile], kind: FileKind) -> list[RawFile]:
    """Those files that hold items, or events."""
    return [file for file in files if kind in file.kinds]
