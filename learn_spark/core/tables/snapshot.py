"""One version of a Delta table, read without a JVM: its version, files, row counts and rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from pyarrow.fs import FileSystem, SubTreeFileSystem

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.storage.path import storage_path
from learn_spark.core.tables.inside import file_inside
from learn_spark.core.tables.log_files import oldest_version
from learn_spark.core.tables.small import SMALL_BYTES, SMALL_ROWS

READ_BUFFER_BYTES = 1 << 20


class SnapshotError(LearnSparkError):
    """A Delta snapshot does not exist, or cannot be read file by file."""


def open_table(path: str, version: int | None = None) -> DeltaTable:
    """The table at a path or address, opened without a JVM. Raises TableNotFoundError."""
    place = storage_path(path)
    # A local folder that does not exist would be an error of another kind, and deltalake makes it.
    if place.is_local and not (place / "_delta_log").is_folder():
        raise TableNotFoundError(f"there is no Delta table at {place}")
    return DeltaTable(str(place), version=version, storage_options=place.delta_options)


def current_version(path: str) -> int | None:
    """The newest version of the table at ``path``; None if there is no table. One request at an address."""
    mark = commit_mark(path)
    return None if mark is None else mark[0]


def commit_mark(path: str) -> tuple[int, int] | None:
    """(version, time in ns) of the newest commit; None if there is no table. One request at an address.

    A folder that was put back, or a table that was deleted and made anew, may have the same version at another time.
    """
    commits = commits_at(path)
    return max(commits.items(), default=None)


def commits_at(path: str) -> dict[int, int]:
    """Version -> time in ns of the last change of each commit in the log at ``path``; empty if there is no table. One
    request at an address. Of a table in a folder, the newest commit alone.
    """
    place = storage_path(path)
    known = _known_commits.get()
    if known is not None and place in known:
        return known[place]
    log = place / "_delta_log"
    if place.is_local:
        version = max(filter(None, map(_commit_of, log.names())), default=None, key=lambda found: found[0])
        commit = None if version is None else (log / version[1]).entry()
        return {} if version is None or commit is None else {version[0]: commit.changed_ns}
    files = ((_commit_of(entry.path.name), entry.changed_ns) for entry in log.files(recursive=False))
    commits = {found[0]: changed_ns for found, changed_ns in files if found is not None}
    if known is not None:
        known[place] = commits
    return commits


def _commit_of(name: str) -> tuple[int, str] | None:
    """(version, name) of a commit's file."""
    number = name.removesuffix(".json")
    return (int(number), name) if number != name and number.isdecimal() else None


_known_commits: ContextVar[dict[str, dict[int, int]] | None] = ContextVar("known_commits", default=None)


@contextmanager
def logs_listed_once(known: dict[str, dict[int, int]]) -> Iterator[None]:
    """In this block ``commits_at`` asks the store once for each table; ``known`` has the answers.

    For a block that changes no table: each answer costs a request.
    """
    token = _known_commits.set(known)
    try:
        yield
    finally:
        _known_commits.reset(token)


def commit_time(path: str, version: int) -> datetime:
    """The commit time (UTC) of a version, from the log. Raises SnapshotError if the log no longer has it."""
    for candidate, time in _commits(path):
        if candidate == version:
            return time
    raise SnapshotError(f"the log of {path} has no commit of version {version}")


def version_at(path: str, time: datetime) -> int:
    """The newest version at ``time``; the oldest one in the log if all are later."""
    oldest = 0
    for version, committed in _commits(path):
        if committed <= time:
            return version
        oldest = version
    return oldest


def _commits(path: str) -> Iterator[tuple[int, datetime]]:
    """(version, time) of all commits, newest first. (deltalake gives wrong versions for a table opened at an old
    one.)"""
    for commit in open_table(path).history():
        yield int(commit["version"]), datetime.fromtimestamp(commit["timestamp"] / 1000, UTC)


def rows_of(
    table: DeltaTable, path: str, columns: list[str] | None = None, where: ds.Expression | None = None
) -> pa.Table:
    """All rows of an open table, which is that at ``path``, or those that satisfy ``where``: files whose statistics
    exclude it are not read. Raises OutsideError for a table with files elsewhere.

    Read through Arrow's file system: that of deltalake calls Python from Arrow's threads, and a thread that is still
    busy at the end of the interpreter aborts the process.
    """
    place = storage_path(path)
    for name in pa.table(table.get_add_actions())["path"].to_pylist():
        file_inside(place, name)
    below = SubTreeFileSystem(place.inner, place.file_system)
    return table.to_pyarrow_table(columns=columns, filesystem=below, filters=where)


def open_version(path: str, version: int | None = None) -> DeltaTable:
    """The table at ``version`` (None: the newest). Raises SnapshotError if the table or version does not exist."""
    try:
        return open_table(path, version)
    except (TableNotFoundError, DeltaError) as error:
        oldest = oldest_version(path)
        if version is not None and version < (oldest or 0) and current_version(_erasures(path)) is not None:
            raise SnapshotError(
                f"version {version} of {path} was deleted when users were erased (learn-spark erase); versions from "
                f"{oldest} on can be read"
            ) from None
        if oldest is None:
            raise SnapshotError(f"there is no Delta table at {path}; run the stage that writes it first") from None
        raise SnapshotError(f"version {version} of {path} cannot be read: {error}") from None


def _erasures(path: str) -> str:
    return storage_path(path).parent / "erasures"


@dataclass(frozen=True)
class Snapshot:
    """The files of one table version, sorted by name, with their numbers of rows and their size together.

    ``files`` are paths in ``file_system``.
    """

    path: str
    version: int
    files: tuple[str, ...]
    file_rows: tuple[int, ...]
    size_bytes: int = 0

    def __post_init__(self) -> None:
        if len(self.files) != len(self.file_rows):
            raise SnapshotError(
                f"{self.path} @ {self.version}: {len(self.files)} files, but {len(self.file_rows)} row counts"
            )
        repeated = sorted(file for file, times in Counter(self.files).items() if times > 1)
        if repeated:
            raise SnapshotError(f"{self.path} @ {self.version} lists {repeated[0]} more than once")

    @staticmethod
    def open(path: str, version: int | None = None) -> Snapshot:
        """The snapshot of ``path`` at ``version`` (None: the newest).

        Raises SnapshotError if the table or version does not exist, if it has deletion vectors (whose deleted rows
        would be read), or if the log lacks the number of rows of a file; OutsideError for a table with files elsewhere.
        """
        return Snapshot.of(open_version(path, version), path)

    @staticmethod
    def of(table: DeltaTable, path: str) -> Snapshot:
        """The snapshot of an open table, which is that at ``path``. Raises SnapshotError as ``open``."""
        place = storage_path(path)
        actions = pa.table(table.get_add_actions(flatten=True)).to_pylist()
        # The list of files does not contain deletion vectors.
        if pa.table(table.deletion_vectors()).num_rows:
            raise SnapshotError(
                f"{path} @ {table.version()} has deletion vectors, so that its files contain deleted rows. "
                "Run REORG TABLE ... APPLY (PURGE) and set delta.enableDeletionVectors = false"
            )
        rows = {}
        for action in actions:
            if action.get("num_records") is None:
                raise SnapshotError(f"the log of {path} has no number of rows of {action['path']}")
            rows[action["path"]] = int(action["num_records"])
        ordered = sorted(rows)
        files = tuple(file_inside(place, name) for name in ordered)
        size = sum(int(action["size_bytes"]) for action in actions)
        return Snapshot(place, table.version(), files, tuple(rows[name] for name in ordered), size)

    @property
    def file_system(self) -> FileSystem:
        """The file system of ``files``."""
        return storage_path(self.path).file_system

    @property
    def spark_files(self) -> list[str]:
        """The URLs of ``files`` for Spark."""
        place = storage_path(self.path)
        return [f"{place.spark}{file.removeprefix(place.inner)}" for file in self.files]

    def dataset(self) -> ds.Dataset:
        """The rows as an Arrow dataset. The snapshot must have files."""
        return ds.dataset(list(self.files), format="parquet", filesystem=self.file_system)

    @property
    def rows(self) -> int:
        """Number of rows in the snapshot, from the log."""
        return sum(self.file_rows)

    @property
    def is_small(self) -> bool:
        """Whether one task reads it as fast as several."""
        return self.rows <= SMALL_ROWS and self.size_bytes <= SMALL_BYTES

    def to_arrow(self, columns: list[str] | None = None) -> pa.Table:
        """All rows. Raises SnapshotError if their number differs from the log."""
        table = rows_of(open_table(self.path, self.version), self.path, columns)
        if table.num_rows != self.rows:
            raise SnapshotError(
                f"{self.path} @ {self.version}: {table.num_rows} rows were read, its log has {self.rows}"
            )
        return table

    def read_file(self, number: int, columns: list[str]) -> pa.Table:
        """``columns`` of the rows of ``files[number]``. Raises SnapshotError if the file is gone or has other rows
        than the log says.
        """
        try:
            with pq.ParquetFile(self.files[number], filesystem=self.file_system) as file:
                table = file.read(columns=columns).select(columns)
        except FileNotFoundError:
            raise SnapshotError(
                f"{self.path} @ {self.version}: the file {self.files[number]} is gone; its version is no longer kept"
            ) from None
        if table.num_rows != self.file_rows[number]:
            raise SnapshotError(
                f"{self.files[number]}: {table.num_rows} rows were read, the log of {self.path} has "
                f"{self.file_rows[number]}"
            )
        return table

    def batches(self, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        """The rows in batches of at most ``rows``, file after file, in memory that does not grow with the table.

        Raises SnapshotError as ``to_arrow``.
        """
        rows_read = 0
        for path in self.files:
            # A scan by Arrow's dataset reads whole row groups of several files ahead.
            with pq.ParquetFile(path, buffer_size=READ_BUFFER_BYTES, filesystem=self.file_system) as file:
                for batch in file.iter_batches(rows, columns=columns):
                    rows_read += batch.num_rows
                    if batch.num_rows:
                        yield batch.select(columns)
        if rows_read != self.rows:
            raise SnapshotError(f"{self.path} @ {self.version}: {rows_read} rows were read, its log has {self.rows}")
