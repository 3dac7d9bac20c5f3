"""The changes between two releases as an Arrow table, without Spark."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from learn_spark.core.ragged import fixed_lists
from learn_spark.core.storage.path import storage_path
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.inside import file_inside
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.versions import commit_actions
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.change_feed import CHANGE, versions_between
from learn_spark.features.read import key_of

CHANGE_TYPE, VERSION, BECOMES = "_change_type", "_commit_version", "_becomes"
AFTER = pa.array(["add", "insert", "update_postimage"])  # of a row after a commit; the others are of one before it


def changes_arrow(workspace: Workspace, table: str, since: str, *, until: str = "latest") -> pa.Table:
    """The changes from release ``since`` to release ``until``, as ``changes`` gives them: one row per entity with a
    column ``change``; insert and update have the new row, delete has only the key.

    Read are the rows that the commits between the releases changed, by the change data feed; where a part of it is
    gone, the files that only one of the releases has. These rows must fit into memory.

    Raises NoReleaseError if ``until`` is not readable; LearnSparkError if ``since`` was never released or has expired,
    or if one of the files is gone (then read ``until`` as a whole).
    """
    key = key_of(table)
    start, end = versions_between(workspace, table, since, until)
    path, schema = workspace.table(table), contract(table).arrow_schema()
    nullable = pa.schema([field.with_nullable(field.name != key) for field in schema])
    first, last = sorted((start, end))
    ends = _ends_of_feed(path, key, first + 1, last, nullable) or _ends_of_files(path, first, last, nullable)
    before, after = ends if start <= end else ends[::-1]
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


def _ends_of_feed(path: str, key: str, first: int, last: int, schema: pa.Schema) -> tuple[pa.Table, pa.Table] | None:
    """The rows before and after the commits ``first`` to ``last``, of the entities that they changed; None if a commit
    or a file of the feed is gone.
    """
    place, parts = storage_path(path), [pa.table([*schema.empty_table().columns, [], []], _feed_schema(schema))]
    for version in range(first, last + 1):
        if (actions := commit_actions(path, version)) is None:
            return None
        feed: list[tuple[Any, str | None]] = [(action["cdc"], None) for action in actions if "cdc" in action]
        # A commit without a feed of its own changed whole files.
        whole = [(action[kind], kind) for action in actions for kind in ("remove", "add") if kind in action]
        for file, kind in feed or [(file, kind) for file, kind in whole if file["dataChange"]]:
            try:
                with pq.ParquetFile(file_inside(place, file["path"]), filesystem=place.file_system) as opened:
                    rows = opened.read()
            except FileNotFoundError:
                return None
            becomes = rows[CHANGE_TYPE] if kind is None else pa.array([kind] * rows.num_rows, pa.string())
            columns = rows.select(schema.names).cast(schema).columns
            versions = pa.array(np.full(rows.num_rows, version))
            parts.append(pa.table([*columns, versions, pc.is_in(becomes, AFTER)], _feed_schema(schema)))
    rows = pa.concat_tables(parts)
    versions, becomes = rows[VERSION].to_numpy(), rows[BECOMES].to_numpy()
    entity = pc.index_in(rows[key], value_set=pc.unique(rows[key])).to_numpy()
    oldest, newest = (np.full(entity.max(initial=-1) + 1, end) for end in (last, first))
    np.minimum.at(oldest, entity, versions)
    np.maximum.at(newest, entity, versions)
    rows = rows.select(schema.names)
    before, after = ~becomes & (versions == oldest[entity]), becomes & (versions == newest[entity])
    return rows.filter(pa.array(before)), rows.filter(pa.array(after))


def _ends_of_files(path: str, first: int, last: int, schema: pa.Schema) -> tuple[pa.Table, pa.Table]:
    """The rows of two versions in files that the other one does not have."""
    old, new = Snapshot.open(path, first), Snapshot.open(path, last)
    return _rows_without(old, new, schema), _rows_without(new, old, schema)


def _feed_schema(schema: pa.Schema) -> pa.Schema:
    return schema.append(pa.field(VERSION, pa.int64())).append(pa.field(BECOMES, pa.bool_()))


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
