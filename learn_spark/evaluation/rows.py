"""The rows of evaluation_users of an evaluation, which are written at its end in one commit."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import reduce
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import pyarrow as pa

from learn_spark.core.stages.context import StageContext
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import append_parts

if TYPE_CHECKING:
    from learn_spark.core.storage.path import StoragePath
    from learn_spark.evaluation.workers import RankedOnSpark

TABLE = "evaluation_users"


class _Rows:
    """What both kinds share: a temporary folder, and what is removed at the end."""

    def __init__(self, context: StageContext) -> None:
        self._context, self._closing = context, ExitStack()
        parent = context.folder("cache", "evaluation")
        self._folder = Path(self._closing.enter_context(tempfile.TemporaryDirectory(dir=parent)))

    def folder(self, name: str) -> Path:
        """An empty folder for files that are needed until the end of the evaluation."""
        folder = self._folder / name
        folder.mkdir()
        return folder

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()


class LocalRows(_Rows):
    """Rows that this process made, in a file of Arrow's format until all are there."""

    def __init__(self, context: StageContext) -> None:
        super().__init__(context)
        self._schema = contract(TABLE).arrow_schema()
        self._file = self._folder / "rows.arrow"
        self._writer = self._closing.enter_context(pa.ipc.new_file(str(self._file), self._schema))

    def add(self, tables: Iterable[pa.Table]) -> None:
        """Write tables, one after the other."""
        for table in tables:
            self._writer.write_table(table.cast(self._schema))

    def append(self) -> None:
        """Append all rows to evaluation_users."""
        self._writer.close()
        append_parts(self._context.path(TABLE), contract(TABLE), self._tables())

    def _tables(self) -> Iterator[pa.Table]:
        with pa.memory_map(str(self._file)) as file, pa.ipc.open_file(file) as reader:
            for number in range(reader.num_record_batches):
                yield pa.Table.from_batches([reader.get_batch(number)])


class SparkRows(_Rows):
    """Rows on the disks of Spark's workers."""

    def __init__(self, context: StageContext) -> None:
        super().__init__(context)
        self._ranked: list[RankedOnSpark] = []

    def for_workers(self, folder: Path) -> StoragePath:
        """Where workers find the files of ``folder`` until the end of the evaluation."""
        files = self._context.for_workers(folder, f"evaluation-{self._context.run_id}-{folder.name}")
        if not files.is_local:
            self._closing.callback(files.remove)
        return files

    def add(self, ranked: RankedOnSpark) -> None:
        """Add the rows of a split."""
        self._ranked.append(ranked)
        self._closing.callback(ranked.release)

    def append(self) -> None:
        """Append all rows to evaluation_users, by Spark's workers."""
        from learn_spark.core.tables.delta import append

        rows = reduce(lambda first, second: first.unionAll(second), [ranked.rows for ranked in self._ranked])
        append(rows, self._context.path(TABLE), contract(TABLE))
