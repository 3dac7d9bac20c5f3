"""The interface of a raw format: its files, and their rows as strings. Ingest types and checks them."""

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
# The row as JSON; whether the line violates the format; its file, relative to the source's folder.
ROW_COLUMNS = ("raw", "malformed", "source_file")
TimeUnit = Literal["s", "ms", "us", "iso"]
FileKind = Literal["items", "events"]


@dataclass(frozen=True)
class RawFile:
    """One file of a source and its kinds of rows. A Delta table counts as one file, identified by its version.

    ``name`` is the path relative to the source's folder; ``state`` changes whenever the content does.
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
    """A file by its path. Its state is size and modification time, which cost nothing at any size."""
    stat = path.stat()
    name = path.relative_to(folder).as_posix()
    return RawFile(path, name, frozenset(kinds), f"{stat.st_size}:{stat.st_mtime_ns}")


def find_files(folder: Path, pattern: str, kinds: Iterable[FileKind], *, optional: bool = False) -> list[RawFile]:
    """Files below ``folder`` that match a glob ``pattern``, in the order of their names.

    Raises LocationError where there is none (unless ``optional``), or where the pattern leads out of the folder.
    """
    root = folder.resolve()
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise LocationError(f"source.path: there is no {pattern} in {folder}: it leads out of the folder")
    paths = sorted(path for path in root.glob(pattern) if path.is_file())
    if not paths and not optional:
        raise LocationError(f"source.path: there is no {pattern} in {folder}")
    return [raw_file(root, path, kinds) for path in paths]


def of_kind(files: Iterable[RawFile], kind: FileKind) -> list[RawFile]:
    """Those files that have items, or events."""
    return [file for file in files if kind in file.kinds]
