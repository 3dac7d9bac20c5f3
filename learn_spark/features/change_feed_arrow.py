"""The changes between two releases as an Arrow table, from the files that only one of them has, without Spark."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.core.ragged import fixed_lists
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.change_feed import CHANGE, versions_between
from learn_spark.features.read import key_of


def changes_arrow(workspace: Workspace, table: str, since: str, *, until: str = "latest") -> pa.Table:
    """The changes from release ``since`` to release ``until``, as ``changes`` gives them: one row per entity with a
    column ``change``; insert and update have the new row, delete has only the key.

    Files that both releases have are not read; of the others, the rows of both releases must fit into memory. The
    change data feed is not needed.

    Raises NoReleaseError if ``until`` is not readable; LearnSparkError if ``since`` was never released or has expired,
    or if one of the files is gone (then read ``until`` as a whole).
    """
    key = key_of(table)
    start, end = versions_between(workspace, table, since, until)
    path, schema = workspace.table(table), contract(table).arrow_schema()
    nullable = pa.schema([field.with_nullable(field.name != key) for field in schema])
    old, new = Snapshot.open(path, start), Snapshot.open(path, end)
    before, after = _rows_without(old, new, nullable), _rows_without(new, old, nullable)
    place = pc.index_in(after[key], value_set=before[key])
    known = pc.is_valid(place).to_numpy()
    differs = np.ones(len(place), dtype=bool)
    both = before.take(place.filter(pa.array(known)))
    differs[known] = ~_equal_rows(both, after.filter(pa.array(known)))
    kinds = pa.array(np.where(known, "update", "insert")[differs], pa.string())
    written = after.filter(pa.array(differs)).append_column(CHANGE, kinds)
    gone = before[key].filter(pc.invert(pc.is_in(before[key], value_set=after[key])))
    empty = {field.name: pa.nulls(len(gone), field.type) for field in nullable if field.name != key}
    deleted = pa.table({key: gone, **empty, CHANGE: pa.array(["delete"] * len(gone), pa.string())})
    return pa.concat_tables([written, deleted.select(written.column_names).cast(written.schema)])


def _rows_without(snapshot: Snapshot, other: Snapshot, schema: pa.Schema) -> pa.Table:
    """The rows of ``snapshot`` in files that ``other`` does not have."""
    shared = set(other.files)
    own = [place for place, file in enumerate(snapshot.files) if file not in shared]
    return pa.concat_tables(
        [schema.empty_table(), *(snapshot.read_file(one, schema.names).cast(schema) for one in own)]
    )


def _equal_rows(one: pa.Table, other: pa.Table) -> np.ndarray:
    """Whether each row [n] of two tables is the same, vectors to the last bit."""
    same = np.ones(one.num_rows, dtype=bool)
    for name in one.column_names:
        if not pa.types.is_list(one.schema.field(name).type):
            same &= pc.equal(one[name], other[name]).fill_null(False).to_numpy()
    chosen = pa.array(np.flatnonzero(same))
    for name in one.column_names:
        if pa.types.is_list(one.schema.field(name).type) and len(chosen):
            vectors, others = fixed_lists(one[name].take(chosen)), fixed_lists(other[name].take(chosen))
            equal = vectors.shape == others.shape and (vectors.view(np.int32) == others.view(np.int32)).all(axis=1)
            same[chosen.to_numpy()] &= equal
    return same
