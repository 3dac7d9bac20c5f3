"""The validation and test cuts of user histories, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

CutName = Literal["validation", "test"]


@dataclass(frozen=True)
class Cut:
    """Users with a target on this cut. Positions count items from 0 (item_index - 1).

    ``items`` [B, L] item_index, ``lengths`` [B] how many of them lie before the target, ``targets`` [B] positions,
    ``seen`` the positions of every event before the target.
    """

    user_ids: list[str]
    items: np.ndarray
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

    What lies after the target is neither input nor masked: on the validation cut nobody knows the test event.
    """
    histories = histories.sort_by("user_id")
    items = fixed_lists(histories["item_index"])
    before = histories["train_length" if cut == "validation" else "validation_length"].to_numpy()
    until = histories["validation_length" if cut == "validation" else "length"].to_numpy()
    chosen = np.flatnonzero((until > before) & (before > 0))
    items, lengths = items[chosen], before[chosen].astype(np.int64)
    targets = items[np.arange(len(chosen)), lengths].astype(np.int64) - 1 if len(chosen) else np.zeros(0, np.int64)
    seen = [np.unique(row[:length]).astype(np.int64) - 1 for row, length in zip(items, lengths, strict=True)]
    users = histories["user_id"].take(pa.array(chosen)).to_pylist()
    return Cut(users, items, lengths, targets, seen)


def training_events(histories: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """All training events: positions one user after the other, and the offsets [users + 1] of each user's."""
    histories = histories.sort_by("user_id")
    items = fixed_lists(histories["item_index"])
    lengths = histories["train_length"].to_numpy().astype(np.int64)
    inside = np.arange(items.shape[1]) < lengths[:, None]
    return items[inside].astype(np.int64) - 1, np.concatenate([[0], np.cumsum(lengths)])
