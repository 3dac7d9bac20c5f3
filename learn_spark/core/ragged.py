"""Lists of different lengths as flat arrays: the values of all rows end to end, and offsets [rows + 1]."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def take_rows(offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Select ``rows`` [R]: (positions of their values in the flat array, offsets [R + 1] of the result).

    Row i's values are ``offsets[i] : offsets[i + 1]``.
    """
    sizes = np.diff(offsets)[rows]
    taken = np.concatenate([[0], np.cumsum(sizes)])
    return np.arange(taken[-1]) + np.repeat(offsets[rows] - taken[:-1], sizes), taken


def concatenate_rows(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(row number of each value, values) of the concatenated ``rows``, both int64 [values]."""
    numbers = np.repeat(np.arange(len(rows), dtype=np.int64), [len(row) for row in rows])
    return numbers, np.concatenate([np.zeros(0, np.int64), *(np.asarray(row, dtype=np.int64) for row in rows)])


def owners_of(offsets: np.ndarray) -> np.ndarray:
    """The row number of each value, int64 [offsets[-1] - offsets[0]]."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def fixed_lists(column: pa.ChunkedArray) -> np.ndarray:
    """A column of equally long lists as an array [rows, L]."""
    # Chunk by chunk: the 32-bit offsets of one Arrow list end at 2^31 values.
    parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(len(chunk), -1) for chunk in column.chunks if chunk]
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.int32)


def check_ragged(values: np.ndarray, offsets: np.ndarray, n_items: int) -> None:
    """Raise ValueError unless ``offsets`` [B + 1] rise from 0 to ``len(values)`` and values are in 0..n_items - 1."""
    if n_items < 1:
        raise ValueError(f"n_items {n_items} must be at least 1")
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"expected a flat array of integer positions, got {values.dtype} {values.shape}")
    if offsets.ndim != 1 or len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(values):
        raise ValueError(f"offsets must go from 0 to {len(values)}, got {offsets[:1]} to {offsets[-1:]}")
    if (np.diff(offsets) < 0).any():
        raise ValueError(f"offsets must not fall; {int((np.diff(offsets) < 0).sum())} of {len(offsets)} do")
    if len(values) and (values.min() < 0 or values.max() >= n_items):
        raise ValueError(f"positions {values.min()}..{values.max()} are outside 0..{n_items - 1}")
