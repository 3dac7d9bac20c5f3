"""The validation and test cuts of user histories, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

CutName = Literal["validation", "test"]


@dataclass(frozen=True)
class Cut:
    """Users with a target on this cut. Positions count items from 0 (item_index - 1).

    ``items`` [B, L] item_index, ``times`` [B, L] microseconds, ``lengths`` [B] how many of them lie before the target,
    ``targets`` [B] positions, ``seen`` the positions of every event before the target.
    """

    user_ids: list[str]
    items: np.ndarray
    times: np.ndarray
    lengths: np.ndarray
    targets: np.ndarray
    seen: list[np.ndarray]


def fixed_lists(column: pa.ChunkedArray) -> np.ndarray:
    """A column of equally long lists as an array [rows, L]."""
    flat = column.combine_chunks()
    rows = len(flat)
    return flat.flatten().to_numpy(zero_copy_only=False).reshape(rows, -1) if rows else np.zeros((0, 0), np.int32)


def cut_histories(histories: pa.Table, cut: CutName) -> Cut:
    """The users of user_histories that have a target on ``cut``, in the order of user_id.

    The target is the first event after the cut. What lies after it is neither input nor masked: on the validation cut
    nobody knows the test event. Masked is all that lies before, a long user's older chunks too.
    """
    newest = _in_order(histories.filter(pc.equal(histories["chunk"], 0)))
    items = fixed_lists(newest["item_index"])
    before = newest["train_length" if cut == "validation" else "validation_length"].to_numpy()
    until = newest["validation_length" if cut == "validation" else "length"].to_numpy()
    chosen = np.flatnonzero((until > before) & (before > 0))
    times = fixed_lists(newest["event_time"])[chosen]
    items, lengths = items[chosen], before[chosen].astype(np.int64)
    targets = items[np.arange(len(chosen)), lengths].astype(np.int64) - 1 if len(chosen) else np.zeros(0, np.int64)
    users = newest["user_id"].take(pa.array(chosen)).to_pylist()
    older = _older_items(histories)
    nothing = np.zeros(0, items.dtype)
    seen = [
        np.unique(np.concatenate([row[:length], older.get(user, nothing)])).astype(np.int64) - 1
        for user, row, length in zip(users, items, lengths, strict=True)
    ]
    return Cut(users, items, times, lengths, targets, seen)


def training_events(histories: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """All training events: positions one row after the other, and the offsets [rows + 1] of each row's.

    A long user's chunks follow each other, oldest first. Where training samples are cut at a fixed time, only the
    events before it count: statistics made of these know nothing of the time in which targets lie.
    """
    histories = _in_order(histories)
    items = fixed_lists(histories["item_index"])
    lengths = histories["train_length"].to_numpy().astype(np.int64)
    cuts = histories["cut_length"].to_numpy().astype(np.int64)
    lengths = np.where(cuts > 0, np.minimum(cuts, lengths), lengths)
    inside = np.arange(items.shape[1]) < lengths[:, None]
    return items[inside].astype(np.int64) - 1, np.concatenate([[0], np.cumsum(lengths)])


def _in_order(histories: pa.Table) -> pa.Table:
    return histories.sort_by([("user_id", "ascending"), ("chunk", "descending")])


def _older_items(histories: pa.Table) -> dict[str, np.ndarray]:
    older = histories.filter(pc.greater(histories["chunk"], 0)).sort_by("user_id")
    if not older.num_rows:
        return {}
    items, lengths = fixed_lists(older["item_index"]), older["length"].to_numpy()
    parts: dict[str, list[np.ndarray]] = {}
    for user, row, length in zip(older["user_id"].to_pylist(), items, lengths, strict=True):
        parts.setdefault(user, []).append(row[:length])
    return {user: np.concatenate(rows) for user, rows in parts.items()}
