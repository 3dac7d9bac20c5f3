"""Folds of users for cross-fitting: each user is scored by a model that was fitted on the other fold."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

FOLDS = 2


def fold_of(user_ids: Sequence[str]) -> np.ndarray:
    """The fold [B] of each user, by a hash of the id."""
    return np.array([zlib.crc32(user.encode()) % FOLDS for user in user_ids], dtype=np.int64)


def by_fold(user_ids: Sequence[str]) -> list[np.ndarray]:
    """The row numbers of each fold's users."""
    fold = fold_of(user_ids)
    return [np.flatnonzero(fold == number) for number in range(FOLDS)]
