"""Methods' ranks of the same targets, some users at a time, in memory that does not grow with evaluation_users."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.splits.sample import user_hashes
from learn_spark.data.splits.split import SplitName
from learn_spark.evaluation.slices import DIMENSIONS

TABLE = "evaluation_users"
PART_ROWS = 1 << 19  # rows of evaluation_users in memory at once, more or less
BATCH_ROWS = 1 << 17  # rows read at once
RANK_COLUMNS = ["run_id", "method", "user_id", "item_id", "rank"]

Evaluated = tuple[str, str]  # a run of evaluate, and a method of it


@dataclass
class TargetDifference:
    """How the targets of ``first`` and of another result differ: ``targets`` and ``users`` of each, and how many users
    only one of them has. ``differ``: whether there is any other target.
    """

    differ: bool = False
    targets: tuple[int, int] = (0, 0)
    users: tuple[int, int] = (0, 0)
    in_one: int = 0

    def add(self, first: pa.Table, other: pa.Table) -> None:
        """Add the rows of some users, ordered by user and target."""
        self.differ |= not all(first[column].equals(other[column]) for column in ("user_id", "item_id"))
        ours, theirs = (set(pc.unique(rows["user_id"]).to_pylist()) for rows in (first, other))
        self.targets = (self.targets[0] + len(first), self.targets[1] + len(other))
        self.users = (self.users[0] + len(ours), self.users[1] + len(theirs))
        self.in_one += len(ours ^ theirs)


@dataclass(frozen=True)
class Targets:
    """Targets of some users, all targets of each, ordered by user and item.

    ``user_ids`` [B] and ``owners`` [T], the number of each target's user; ``item_ids`` [T]; ``labels`` [T] by dimension
    and ``ranks`` [T] by result.
    """

    user_ids: pa.Array
    owners: np.ndarray
    item_ids: pa.Array
    labels: Mapping[str, pa.ChunkedArray]
    ranks: Mapping[Evaluated, np.ndarray]


@dataclass
class CommonTargets:
    """The targets of ``first`` on a split, with the ranks of ``others``; ``differences`` by result, of what was read.

    Memory: ``PART_ROWS`` rows. Where the results have more, rows are put into temporary files by a hash of their users.
    """

    workspace: Workspace
    first: Evaluated
    others: Sequence[Evaluated]
    split: SplitName
    differences: dict[Evaluated, TargetDifference] = field(default_factory=dict)

    def parts(self) -> Iterator[Targets]:
        """Users after users, until one has other targets; the rest then counts the ``differences`` alone."""
        self.differences = {one: TargetDifference() for one in self.others}
        with tempfile.TemporaryDirectory(prefix="learn-spark-compare-") as folder:
            for rows in self._by_users(Path(folder)):
                ordered = {key: _rows_of(rows, key) for key in (self.first, *self.others)}
                first = ordered[self.first]
                for key, difference in self.differences.items():
                    difference.add(first, ordered[key])
                if first.num_rows and not any(one.differ for one in self.differences.values()):
                    yield _targets(first, {key: table["rank"].to_numpy() for key, table in ordered.items()})

    def _by_users(self, folder: Path) -> Iterator[pa.Table]:
        """The rows of all results, those of some users at a time; only those of ``first`` have slices."""
        snapshot = Snapshot.open(self.workspace.table(TABLE))
        schema = contract(TABLE).arrow_schema()
        labelled = pa.schema([schema.field(name) for name in (*RANK_COLUMNS, *DIMENSIONS)])
        if not snapshot.files:
            yield labelled.empty_table()
            return
        dataset, on_split = snapshot.dataset(), pc.field("split") == self.split
        reads = []
        for keys, columns in (([self.first], labelled.names), (self.others, RANK_COLUMNS)):
            one_of = [(pc.field("run_id") == run) & (pc.field("method") == method) for run, method in keys]
            if one_of:
                reads.append((on_split & reduce(or_, one_of), columns))
        count = sum(dataset.count_rows(filter=where) for where, _ in reads)
        batches = (
            _widened(batch, labelled)
            for where, columns in reads
            for batch in dataset.to_batches(
                columns=columns, filter=where, batch_size=BATCH_ROWS, batch_readahead=1, fragment_readahead=1
            )
            if batch.num_rows
        )
        parts = -(-count // PART_ROWS)
        if parts < 2:
            yield pa.Table.from_batches(batches, labelled)
            return
        files = [folder / f"{part:05}.arrow" for part in range(parts)]
        _spread(batches, labelled, files)
        for file in files:
            with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as reader:
                yield reader.read_all()
            file.unlink()


def _widened(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """``batch`` with the columns of ``schema``, null where it has none."""
    columns = [
        batch.column(one.name).cast(one.type) if one.name in batch.schema.names else pa.nulls(batch.num_rows, one.type)
        for one in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _spread(batches: Iterable[pa.RecordBatch], schema: pa.Schema, files: Sequence[Path]) -> None:
    """Write rows into ``files`` by a hash of their user, so that a user is in one of them."""
    writers = [
        pa.ipc.new_stream(str(file), schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) for file in files
    ]
    for batch in batches:
        numbers = (user_hashes(batch.column("user_id")) % np.uint64(len(files))).astype(np.int64)
        order = np.argsort(numbers, kind="stable")
        ends = np.searchsorted(numbers[order], np.arange(len(files) + 1))
        ordered = batch.take(pa.array(order))
        for number, writer in enumerate(writers):
            if ends[number] < ends[number + 1]:
                writer.write_batch(ordered.slice(ends[number], ends[number + 1] - ends[number]))
    for writer in writers:
        writer.close()


def _rows_of(rows: pa.Table, key: Evaluated) -> pa.Table:
    of_key = pc.and_(pc.equal(rows["run_id"], key[0]), pc.equal(rows["method"], key[1]))
    return rows.filter(of_key).sort_by([("user_id", "ascending"), ("item_id", "ascending")])


def _targets(rows: pa.Table, ranks: Mapping[Evaluated, np.ndarray]) -> Targets:
    users = rows["user_id"].combine_chunks().dictionary_encode()  # in order of their first row, which rises
    return Targets(
        user_ids=users.dictionary,
        owners=users.indices.to_numpy(),
        item_ids=rows["item_id"].combine_chunks(),
        labels={dimension: rows[dimension] for dimension in DIMENSIONS},
        ranks=ranks,
    )
