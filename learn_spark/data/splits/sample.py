"""A sample of users by the hash of their ids: the same users in every process, on every machine and in every run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pandas.util import hash_array

HASH_KEY = "learn-spark users"[:16]  # pandas needs 16 characters


@dataclass(frozen=True)
class UserSample:
    """The users whose hash is at most ``highest``; None: all users."""

    highest: int | None = None

    @staticmethod
    def of(parts: Iterable[pa.Table], users: int) -> UserSample:
        """The ``users`` users with the lowest hashes among the rows of ``parts`` with chunk 0; all where there are
        fewer. At most twice as many hashes and one part are in memory. Raises ValueError for users below 1.
        """
        return UserSample(lowest_hashes((part.filter(_is_newest(part))["user_id"] for part in parts), users))

    def contains(self, user_ids: Sequence[str]) -> np.ndarray:
        """Whether each user is in the sample [B]."""
        if self.highest is None:
            return np.ones(len(user_ids), dtype=bool)
        return user_hashes(pa.array(user_ids, pa.string())) <= self.highest

    def rows(self, part: pa.Table) -> pa.Table:
        """The rows of ``part`` whose users are in the sample."""
        return part if self.highest is None else part.filter(pa.array(user_hashes(part["user_id"]) <= self.highest))


def lowest_hashes(user_ids: Iterable[pa.Array | pa.ChunkedArray], users: int) -> int | None:
    """The largest of the ``users`` lowest hashes of ``user_ids``, each of which appears once; None where there are at
    most so many. Raises ValueError for users below 1.
    """
    if users < 1:
        raise ValueError(f"a sample needs at least 1 user, got {users}")
    lowest, more = np.zeros(0, np.uint64), False
    for part in user_ids:
        hashes = np.concatenate([lowest, user_hashes(part)])
        more |= len(hashes) > users
        lowest = np.partition(hashes, users - 1)[:users] if len(hashes) > users else hashes
    return int(lowest.max()) if more else None


def user_hashes(user_ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A hash of each id, uint64 [rows] (SipHash)."""
    ids = user_ids.to_numpy(zero_copy_only=False)
    return hash_array(ids, hash_key=HASH_KEY, categorize=False) if len(ids) else np.zeros(0, np.uint64)


def _is_newest(part: pa.Table) -> pa.Array:
    return pa.array(part["chunk"].to_numpy() == 0)
