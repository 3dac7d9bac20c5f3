"""The assembly of histories once more, in numpy: what Spark's plan must give, and rows for tests without Spark.

Memory is bounded: it keeps one block of events, and of an unfinished user only events that may enter the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.core.times import DAY
from learn_spark.data.histories.protocols import LEAVE_OUT, TRAINING, VALIDATION, LeaveOut

BLOCK_EVENTS = 131_072
ROWS_OUT = 2_048
_CONSTANTS = {"weight": np.float32(1), "chunk": np.int32(0), "n_events": np.int64(0)}


@dataclass(frozen=True)
class Lengths:
    """Columns train_end, train_length and validation_length of user_histories, each [rows]
    (schemas/user_histories.yaml).
    """

    train_end: np.ndarray
    train: np.ndarray
    validation: np.ndarray


@dataclass(frozen=True)
class AssemblyPlan:
    """The settings that a worker needs.

    ``split_time`` is T of protocol time_split, in microseconds. With ``train_after_split``, the targets of training
    users are events from T on; without it, no user trains on events from T on.
    """

    protocol: str
    max_length: int
    split_time: int | None = None
    targets: int = 0
    train_after_split: bool = True


@dataclass
class _Block:
    """Events sorted by (group, time, event_id); each group becomes a row. ``starts`` [groups + 1] are the groups'
    beginnings.
    """

    table: pa.Table
    starts: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        return np.diff(self.starts)

    def first(self, name: str) -> np.ndarray:
        values: np.ndarray = self.table[name].to_numpy()[self.starts[:-1]]
        return values


def assemble_stream(
    plan: AssemblyPlan, schema: pa.Schema
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for ``mapInArrow`` over events that are ordered by ``run``; the events of a row have one ``run``.

    Input columns: run, user_id, item_index, time, event_id. Optional: weight (default 1), chunk (default 0), n_events
    (default: counted), role (time_split) and draw (sample: uniform). Output columns: ``schema``, of the contract.
    """

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        carried: pa.Table | None = None
        dropped: dict[tuple[str, int], int] = {}
        batches_read: list[pa.RecordBatch] = []
        rows_read = 0
        for batch in batches:
            batches_read.append(batch)
            rows_read += batch.num_rows
            if rows_read < BLOCK_EVENTS:
                continue
            table = _concatenated(carried, batches_read)
            batches_read, rows_read = [], 0
            runs = table["run"].to_numpy()
            last = len(runs) - int(np.argmax(runs[::-1] != runs[-1])) if (runs != runs[-1]).any() else 0
            if last:
                yield from _rows(_sorted(table.slice(0, last)), plan, dropped, schema)
                dropped = {}
            # A copy, so that the memory of the block is freed.
            carried = _thinned(_sorted(table.slice(last)), plan, dropped)
        table = _concatenated(carried, batches_read)
        if table is not None and table.num_rows:
            yield from _rows(_sorted(table), plan, dropped, schema)

    return work


def _concatenated(carried: pa.Table | None, batches: list[pa.RecordBatch]) -> pa.Table:
    tables = [carried] if carried is not None else []
    if batches:
        new = pa.Table.from_batches(batches)
        for name, constant in _CONSTANTS.items():
            if name not in new.column_names:
                new = new.append_column(name, pa.array(np.full(new.num_rows, constant)))
        tables.append(new.select(tables[0].column_names) if tables else new)
    return pa.concat_tables(tables).combine_chunks() if tables else None


def _sorted(table: pa.Table) -> _Block:
    users = table["user_id"].combine_chunks().dictionary_encode()
    users = users if isinstance(users, pa.DictionaryArray) else users.combine_chunks()
    group = users.indices.to_numpy(zero_copy_only=False).astype(np.int64) << 32
    group += table["chunk"].to_numpy()
    time = table["time"].to_numpy()
    order = np.lexsort((time, group))
    tied = (np.diff(group[order]) == 0) & (np.diff(time[order]) == 0)
    if tied.any():
        # Event ids are compared only for ties in time: sorting text is slow.
        inside = np.flatnonzero(np.append(tied, False) | np.insert(tied, 0, False))
        rows = order[inside]
        ids = table["event_id"].take(pa.array(rows))
        rank = np.empty(len(rows), np.int64)
        rank[pc.sort_indices(ids).to_numpy()] = np.arange(len(rows))
        order[inside] = rows[np.lexsort((rank, time[rows], group[rows]))]
    ordered = group[order]
    starts = np.concatenate([[0], np.flatnonzero(np.diff(ordered)) + 1, [len(ordered)]]) if len(ordered) else [0]
    return _Block(table.take(pa.array(order)).combine_chunks(), np.asarray(starts, np.int64))


def _kept(block: _Block, plan: AssemblyPlan) -> tuple[np.ndarray, np.ndarray]:
    """(whether each event is kept [events], number of events before T that each group keeps as history [groups])."""
    sizes = block.sizes
    group = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(len(group)) - block.starts[:-1][group]
    if plan.split_time is None:
        return place >= sizes[group] - plan.max_length, np.zeros(len(sizes), np.int64)
    before = block.table["time"].to_numpy() < plan.split_time
    n_before = np.bincount(group[before], minlength=len(sizes))
    room = plan.max_length - plan.targets
    if "draw" in block.table.column_names:
        # The events with the smallest random numbers: the choice does not depend on how events are batched.
        draw = block.table["draw"].to_numpy()
        by_draw = np.lexsort((draw, ~before, group))
        drawn = np.empty(len(group), np.int64)
        drawn[by_draw] = np.arange(len(group))
        drawn -= block.starts[:-1][group]
        keep = np.where(before, drawn < room, drawn - n_before[group] < plan.targets)
    else:
        from_split = place - n_before[group]
        keep = (from_split >= -room) & (from_split < plan.targets)
    if not plan.train_after_split:
        keep &= before | (block.table["role"].to_numpy() != TRAINING)
    return keep, np.minimum(n_before, room)


def _thinned(block: _Block, plan: AssemblyPlan, dropped: dict[tuple[str, int], int]) -> pa.Table:
    """The events of unfinished groups that may enter the row; counts of the others are added to ``dropped``."""
    keep, _ = _kept(block, plan)
    sizes = block.sizes
    removed = sizes - np.add.reduceat(keep, block.starts[:-1]) if len(sizes) else sizes
    users, chunks = block.table["user_id"], block.table["chunk"].to_numpy()
    for at in np.flatnonzero(removed):
        start = int(block.starts[at])
        key = (users[start].as_py(), int(chunks[start]))
        dropped[key] = dropped.get(key, 0) + int(removed[at])
    return block.table.filter(pa.array(keep)).combine_chunks()


def _rows(
    block: _Block, plan: AssemblyPlan, dropped: dict[tuple[str, int], int], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    keep, history = _kept(block, plan)
    sizes = block.sizes
    lengths = np.add.reduceat(keep.astype(np.int64), block.starts[:-1])
    if not lengths.all():
        # A user without kept events has no row.
        left = block.table.filter(pa.array(np.repeat(lengths > 0, sizes))).combine_chunks()
        starts = np.concatenate([[0], np.cumsum(sizes[lengths > 0])])
        if len(starts) > 1:
            yield from _rows(_Block(left, starts), plan, dropped, schema)
        return
    users = block.table["user_id"].take(pa.array(block.starts[:-1])).combine_chunks()
    users = users if isinstance(users, pa.Array) else pa.concat_arrays(users.chunks)
    chunk = block.first("chunk")
    given = block.first("n_events")
    n_events = np.where(given > 0, given, sizes)
    if dropped:
        names = users.to_pylist()
        for at, key in enumerate(zip(names, chunk.tolist(), strict=True)):
            if key in dropped and not given[at]:
                n_events[at] += dropped[key]
    items, times, weights = (block.table[n].to_numpy()[keep] for n in ("item_index", "time", "weight"))
    if plan.protocol == "last_day":
        ends = last_day_lengths(times, lengths)
    elif plan.split_time is None:
        ends = leave_out_lengths(LEAVE_OUT[plan.protocol], lengths, chunk)
    else:
        lengths_of = time_split_lengths if plan.train_after_split else before_split_lengths
        ends = lengths_of(history, lengths, block.first("role"))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    for at in range(0, len(lengths), ROWS_OUT):
        part = slice(at, at + ROWS_OUT)
        yield _padded(
            users.slice(at, ROWS_OUT),
            chunk[part],
            (items, times, weights),
            starts[:-1][part],
            lengths[part],
            Lengths(ends.train_end[part], ends.train[part], ends.validation[part]),
            n_events[part],
            plan.max_length,
            schema,
        )


def _padded(
    users: pa.Array,
    chunk: np.ndarray,
    values: tuple[np.ndarray, np.ndarray, np.ndarray],
    starts: np.ndarray,
    lengths: np.ndarray,
    ends: Lengths,
    n_events: np.ndarray,
    width: int,
    schema: pa.Schema,
) -> pa.RecordBatch:
    column = np.arange(width)
    inside = column < lengths[:, None]
    at = np.where(inside, starts[:, None] + column, 0)
    offsets = pa.array(np.arange(0, (len(lengths) + 1) * width, width, dtype=np.int32))
    lists = [
        pa.ListArray.from_arrays(offsets, pa.array(np.where(inside, column_values[at], 0).astype(kind).ravel()))
        for column_values, kind in zip(values, (np.int32, np.int64, np.float32), strict=True)
    ]
    numbers = [pa.array(x.astype(np.int32)) for x in (lengths, ends.train_end, ends.train, ends.validation)]
    columns = [users, pa.array(chunk.astype(np.int32)), *lists, *numbers, pa.array(n_events.astype(np.int64))]
    names = [
        "user_id",
        "chunk",
        "item_index",
        "event_time",
        "weight",
        "length",
        "train_end",
        "train_length",
        "validation_length",
        "n_events",
    ]
    return pa.RecordBatch.from_arrays(columns, names=names).select(schema.names)


def leave_out_lengths(rule: LeaveOut, length: np.ndarray, chunk: np.ndarray) -> Lengths:
    """Lengths of rows of ``length`` [rows] events; chunks above 0 are training only."""
    enough = (length > rule.validation + rule.test) & (chunk == 0)
    train = np.where(enough, length - rule.validation - rule.test, length)
    return Lengths(np.zeros_like(length), train, np.where(enough, length - rule.test, length))


def last_day_lengths(times: np.ndarray, length: np.ndarray) -> Lengths:
    """Lengths of rows of ``length`` [rows] events with ``times`` (microseconds, row after row, ascending).

    A row's test targets are all events of its last day (UTC), so that their order within the day does not matter. The
    events of the day before are validation targets unless it is the first day. A row of one day is training only.
    """
    ends = np.cumsum(length)
    row = np.repeat(np.arange(len(length)), length)
    begins = np.ones(len(times), bool)  # where a row's day begins
    begins[1:] = (np.diff(times // DAY) != 0) | (np.diff(row) != 0)
    starts_of_days = np.flatnonzero(begins)
    days = np.bincount(row[starts_of_days], minlength=len(length))
    newest = np.cumsum(days) - 1
    start = ends - length
    last = starts_of_days[newest] - start
    before = np.where(days > 2, starts_of_days[newest - (days > 2)] - start, last)
    return Lengths(np.zeros_like(length), np.where(days > 1, before, length), np.where(days > 1, last, length))


def before_split_lengths(history: np.ndarray, length: np.ndarray, role: np.ndarray) -> Lengths:
    """Lengths of rows whose first ``history`` [rows] events are before T, where users train on these only.

    Events from T on are targets of users with role VALIDATION or TEST; rows of other users must have none.
    """
    return Lengths(np.zeros_like(length), history.copy(), np.where(role == VALIDATION, length, history))


def time_split_lengths(history: np.ndarray, length: np.ndarray, role: np.ndarray) -> Lengths:
    """Lengths of rows whose first ``history`` [rows] events are before T (LEARN section 4, industrial data set).

    For training users, events before T are history and events from T on are targets. Held-out users (role VALIDATION
    or TEST) do not train on events from T on: these are their targets.
    """
    train, validation, train_end = history.copy(), history.copy(), length.copy()
    sample = (role == TRAINING) & (history > 0) & (history < length)
    train_end[sample] = history[sample]
    train[sample] = length[sample]
    validation[(role == TRAINING) | (role == VALIDATION)] = length[(role == TRAINING) | (role == VALIDATION)]
    return Lengths(train_end, train, validation)
