"""Petastorm's reader over chosen row groups of Parquet files in a chosen order, as whole NumPy arrays."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from learn_spark.core.errors import LearnSparkError
from learn_spark.model.feed.shuffle import Rows

with warnings.catch_warnings():
    # Petastorm emits deprecation warnings of its own code at import and at every open.
    warnings.simplefilter("ignore")
    from petastorm.arrow_reader_worker import ArrowReaderWorker
    from petastorm.reader import Reader
    from petastorm.workers_pool import EmptyResultError
    from petastorm.workers_pool.dummy_pool import DummyPool
    from pyarrow.filesystem import FileSystem as LegacyFileSystem

logging.getLogger("petastorm").setLevel(logging.ERROR)


class RowGroup(NamedTuple):
    """One row group of one file."""

    file: str
    number: int


class _OverArrow(LegacyFileSystem):
    """Arrow's file system behind the interface that Petastorm needs: with pyarrow 14 it accepts no other."""

    pathsep = "/"

    def __init__(self, system: pafs.FileSystem) -> None:
        self._system = system

    def open(self, path: str, mode: str = "rb") -> pa.NativeFile:
        return self._system.open_input_file(path)

    def isdir(self, path: str) -> bool:
        return bool(self._system.get_file_info(path).type == pafs.FileType.Directory)

    def isfile(self, path: str) -> bool:
        return bool(self._system.get_file_info(path).type == pafs.FileType.File)

    def exists(self, path: str) -> bool:
        return bool(self._system.get_file_info(path).type != pafs.FileType.NotFound)

    def _isfilestore(self) -> bool:
        return True


def read_row_groups(
    groups: Sequence[RowGroup], columns: Sequence[str], system: pafs.FileSystem | None = None
) -> Iterator[tuple[RowGroup, Rows]]:
    """The row groups in the order of ``groups``, read by Petastorm: column -> array [rows] or [rows, L].

    Files are paths in ``system``, Arrow's file system (None: that of this machine).

    Only these files are read. Given a folder, Petastorm would also read removed files and unpickle the content of
    ``_common_metadata``. ``groups`` must not be empty. Raises LearnSparkError for nulls and for lists of different
    lengths.
    """
    files = sorted({group.file for group in groups})
    # The dummy pool reads in this thread and is the only pool with a reproducible order. Another thread fills its work
    # list, as far ahead as the pool has workers. When the list runs empty the pool sleeps 0.1 s, or for ever if the
    # last item is done before the other thread marked it as the last. So the list is filled completely first.
    pool = DummyPool()
    pool.workers_count = len(groups)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = _Reader(_OverArrow(system or pafs.LocalFileSystem()), files, groups=groups, columns=columns, pool=pool)
    with reader:
        while not reader.ventilator.completed():
            time.sleep(0.001)
        yield from reader


class _Reader(Reader):
    """Petastorm's reader over given row groups in a given order."""

    def __init__(
        self, filesystem: Any, files: list[str], *, groups: Sequence[RowGroup], columns: Sequence[str], pool: DummyPool
    ) -> None:
        self._groups = groups
        super().__init__(
            filesystem,
            files,
            schema_fields=[f"^{name}$" for name in columns],
            shuffle_row_groups=False,
            reader_pool=pool,
            num_epochs=1,
            worker_class=_TableWorker,
            is_batched_reader=True,
        )

    def _filter_row_groups(self, dataset: Any, row_groups: list[Any], *_: Any) -> tuple[list[int], None]:
        index_of = {RowGroup(piece.path, piece.row_group): index for index, piece in enumerate(row_groups)}
        return [index_of[group] for group in self._groups], None


class _TableWorker(ArrowReaderWorker):
    """Publishes whole Arrow tables; Petastorm's worker would convert every row's list to an array."""

    def process(self, piece_index: int, worker_predicate: Any, shuffle_row_drop_partition: Any) -> None:
        piece = self._split_pieces[piece_index]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = piece.read(columns=list(self._schema.fields))
        self.publish_func((RowGroup(piece.path, piece.row_group), table))

    @staticmethod
    def new_results_queue_reader() -> _ArrayResults:
        return _ArrayResults()


class _ArrayResults:
    batched_output = True

    def read_next(self, pool: Any, schema: Any, ngram: Any) -> tuple[RowGroup, Rows]:
        try:
            group, table = pool.get_results()
        except EmptyResultError:
            raise StopIteration from None
        return group, {name: _array(table[name], name, group) for name in table.column_names}


def _array(column: pa.ChunkedArray, name: str, group: RowGroup) -> np.ndarray:
    """An array [rows], or [rows, L] for lists of L values; without a copy where Arrow's memory allows it."""
    where = f"column {name} of {group.file}, row group {group.number}"
    array = column.combine_chunks()
    shape: tuple[int, ...] = (len(array),)
    nulls = array.null_count
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        lengths = pc.min_max(pc.list_value_length(array)).as_py()
        if lengths["min"] != lengths["max"]:
            raise LearnSparkError(
                f"{where} has lists of {lengths['min']} to {lengths['max']} values; pad them to one length "
                "(the histories stage writes them so)"
            )
        array = array.flatten()
        shape = (*shape, lengths["max"] or 0)
        nulls += array.null_count
    if nulls:
        raise LearnSparkError(f"{where} has {nulls:,} nulls; the feed accepts none")
    return array.to_numpy(zero_copy_only=False).reshape(shape)
