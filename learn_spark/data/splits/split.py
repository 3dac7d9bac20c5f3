"""The validation and test splits of user histories, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.core.ragged import concatenate_rows, fixed_lists, owners_of, take_rows

SplitName = Literal["validation", "test"]
# Columns with the number of a row's events before the targets, and with the targets.
LENGTHS: dict[SplitName, tuple[str, str]] = {
    "validation": ("train_length", "validation_length"),
    "test": ("validation_length", "length"),
}


@dataclass(frozen=True)
class Targets:
    """All targets of a split, user after user, each item of a user once (where it came first).

    ``positions`` [T]; user i's are ``offsets[i] : offsets[i + 1]`` (``offsets`` [B + 1]); ``times`` [T] and
    ``times_before`` [T]: of the target's event and of the same user's event before it, microseconds.
    """

    positions: np.ndarray
    offsets: np.ndarray
    times: np.ndarray
    times_before: np.ndarray

    @property
    def owners(self) -> np.ndarray:
        """The user of each target [T]."""
        return owners_of(self.offsets)


@dataclass(frozen=True)
class Split:
    """Users with a target on this split. Positions count items from 0 (item_index - 1).

    ``items`` [B, L] item_index, ``times`` [B, L] microseconds, ``lengths`` [B] how many of them lie before the targets,
    ``fresh`` [B] how many of these are no ``training_events``: on the test split the validation events; ``targets`` [B]
    positions of the first one, ``seen`` the positions of every event before it. Under time_split a user has several
    targets: ``every_target`` has them all.
    """

    user_ids: list[str]
    items: np.ndarray
    times: np.ndarray
    lengths: np.ndarray
    fresh: np.ndarray
    targets: np.ndarray
    seen: list[np.ndarray]
    every_target: Targets

    def take(self, rows: np.ndarray) -> Split:
        """The split of the users ``rows`` [R] alone."""
        every = self.every_target
        target_rows, offsets = take_rows(every.offsets, rows)
        return Split(
            [self.user_ids[row] for row in rows],
            self.items[rows],
            self.times[rows],
            self.lengths[rows],
            self.fresh[rows],
            self.targets[rows],
            [self.seen[row] for row in rows],
            Targets(every.positions[target_rows], offsets, every.times[target_rows], every.times_before[target_rows]),
        )

    def hidden(self, mask_history: bool) -> list[np.ndarray]:
        """Positions that are not ranked for each user: ``seen``, or none where histories are not masked."""
        return self.seen if mask_history else [np.zeros(0, np.int64)] * len(self.seen)

    def repeats(self) -> int:
        """How many targets their user has had before."""
        row, position = concatenate_rows(self.seen)
        size = 1 + max(position.max(initial=0), self.every_target.positions.max(initial=0))
        return int(np.isin(self.every_target.owners * size + self.every_target.positions, row * size + position).sum())


def split_histories(histories: pa.Table, split: SplitName) -> Split:
    """The users of user_histories that have a target on ``split``, in the order of user_id.

    The targets are the events of the split. Events after the first target are neither input nor masked, so that the
    test event stays unknown on the validation split. All earlier events are masked, those of a long user's older chunks
    too.
    """
    newest = histories.filter(pc.equal(histories["chunk"], 0))
    order = _order(newest)
    before, until = (newest[name].to_numpy()[order] for name in LENGTHS[split])
    chosen = np.flatnonzero((until > before) & (before > 0))
    rows = order[chosen]
    times = fixed_lists(newest["event_time"])[rows]
    items, lengths = fixed_lists(newest["item_index"])[rows], before[chosen].astype(np.int64)
    targets = items[np.arange(len(chosen)), lengths].astype(np.int64) - 1 if len(chosen) else np.zeros(0, np.int64)
    users = newest["user_id"].take(pa.array(rows)).to_pylist()
    older = _older_items(histories)
    nothing = np.zeros(0, items.dtype)
    seen = [
        np.unique(np.concatenate([row[:length], older.get(user, nothing)])).astype(np.int64) - 1
        for user, row, length in zip(users, items, lengths, strict=True)
    ]
    fresh = lengths - np.minimum(lengths, _counted(newest)[rows])
    return Split(users, items, times, lengths, fresh, targets, seen, _targets(items, times, lengths, until[chosen]))


def target_times(histories: pa.Table, split: SplitName) -> np.ndarray:
    """The times [T] of the targets of ``split_histories``, microseconds, without what else it makes."""
    newest = histories.filter(pc.equal(histories["chunk"], 0))
    before, until = (newest[name].to_numpy() for name in LENGTHS[split])
    rows = np.flatnonzero((until > before) & (before > 0))
    items, times = (fixed_lists(newest[name])[rows] for name in ("item_index", "event_time"))
    return _targets(items, times, before[rows].astype(np.int64), until[rows]).times


def _targets(items: np.ndarray, times: np.ndarray, lengths: np.ndarray, until: np.ndarray) -> Targets:
    counts = until - lengths
    rows = np.repeat(np.arange(len(lengths)), counts)
    places = lengths[rows] + np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    positions = items[rows, places].astype(np.int64) - 1
    _, first = np.unique(rows * (1 + positions.max(initial=0)) + positions, return_index=True)
    first.sort()
    rows, places = rows[first], places[first]
    offsets = np.searchsorted(rows, np.arange(len(lengths) + 1))
    return Targets(positions[first], offsets, times[rows, places], times[rows, places - 1])


def with_target(histories: pa.Table, split: SplitName) -> pa.Table:
    """The rows of ``histories`` whose users have a target on ``split``, by their chunk 0, and all older chunks."""
    before, until = (histories[name] for name in LENGTHS[split])
    has_target = pc.and_(pc.greater(until, before), pc.greater(before, 0))
    return histories.filter(pc.or_(pc.greater(histories["chunk"], 0), has_target))


def without_test(histories: pa.Table) -> pa.Table:
    """``histories`` [rows] as training may read them: events from ``validation_length`` on become padding, and the
    length columns no longer count them. The test split of the result has no users; everything else is unchanged.
    """
    kept = histories["validation_length"].to_numpy()
    changed = {"length": pa.array(kept), "train_end": pa.array(np.minimum(histories["train_end"].to_numpy(), kept))}
    if "n_events" in histories.column_names:
        gone = histories["length"].to_numpy() - kept
        changed["n_events"] = pa.array(histories["n_events"].to_numpy() - gone)
    for name in ("item_index", "event_time", "weight"):
        if name in histories.column_names:
            kind = histories.schema.field(name).type
            values = fixed_lists(histories[name])
            inside = np.arange(values.shape[1]) < kept[:, None]
            flat = pa.array(np.where(inside, values, 0).astype(values.dtype).reshape(-1), kind.value_type)
            changed[name] = pa.ListArray.from_arrays(
                pa.array(np.arange(len(values) + 1) * values.shape[1], pa.int32()), flat
            )
    for name, column in changed.items():
        field = histories.schema.field(name)
        histories = histories.set_column(histories.column_names.index(name), field, column.cast(field.type))
    return histories


def with_validation(histories: pa.Table) -> pa.Table:
    """``histories`` [rows] with validation events as training events, for a refit (training.refit)."""
    column = histories.column_names.index("train_length")
    return histories.set_column(column, histories.schema.field("train_length"), histories["validation_length"])


def training_events(histories: pa.Table, *, since: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """All training events: positions one row after the other, and the offsets [rows + 1] of each row's.

    ``since``: only those at this time (microseconds) or after it.

    A long user's chunks follow each other, oldest first. Where training samples are split at a fixed time, only
    events before it count, so that statistics contain nothing from the time of the targets.
    """
    order = _order(histories)
    items = fixed_lists(histories["item_index"])[order]
    lengths = _counted(histories)[order]
    inside = np.arange(items.shape[1]) < lengths[:, None]
    if since is not None:
        inside &= fixed_lists(histories["event_time"])[order] >= since
    return items[inside].astype(np.int64) - 1, np.concatenate([[0], np.cumsum(inside.sum(axis=1))])


def _counted(histories: pa.Table) -> np.ndarray:
    """How many events of each row [rows] are training events."""
    lengths = histories["train_length"].to_numpy().astype(np.int64)
    ends = histories["train_end"].to_numpy().astype(np.int64)
    counted: np.ndarray = np.where(ends > 0, np.minimum(ends, lengths), lengths)
    return counted


def event_counts(histories: pa.Table, n_items: int) -> np.ndarray:
    """Training events of each item [N]."""
    return np.bincount(training_events(histories)[0], minlength=n_items)


def trained_counts(histories: pa.Table, n_items: int) -> np.ndarray:
    """Events of each item [N] in training samples, targets included: an item with 0 was in no training sample.

    Under time_split this differs from the counts of ``training_events``: targets of training users lie after the split
    time, and held-out users are no samples.
    """
    return np.bincount(sampled_events(histories), minlength=n_items)


def sampled_events(histories: pa.Table) -> np.ndarray:
    """The positions [events] of all events in training samples, targets included."""
    items, lengths = fixed_lists(histories["item_index"]), histories["train_length"].to_numpy()
    ends = histories["train_end"].to_numpy()
    lengths = np.where((ends > 0) & (ends >= lengths), 0, lengths)
    inside = np.arange(items.shape[1]) < lengths[:, None]
    positions: np.ndarray = items[inside].astype(np.int64) - 1
    return positions


def _order(histories: pa.Table) -> np.ndarray:
    """The row numbers by user_id, a user's oldest chunk first."""
    keys: list[tuple[str, str]] = [("user_id", "ascending"), ("chunk", "descending")]
    return pc.sort_indices(histories.select(["user_id", "chunk"]), sort_keys=keys).to_numpy().astype(np.int64)


def _older_items(histories: pa.Table) -> dict[str, np.ndarray]:
    older = histories.filter(pc.greater(histories["chunk"], 0))
    items, lengths = fixed_lists(older["item_index"]), older["length"].to_numpy()
    parts: dict[str, list[np.ndarray]] = {}
    for user, row, length in zip(older["user_id"].to_pylist(), items, lengths, strict=True):
        parts.setdefault(user, []).append(row[:length])
    return {user: np.concatenate(rows) for user, rows in parts.items()}
