"""The table of users, read batch by batch, and divided into all users and their cohorts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from learn_spark.ads.experiments.moments import WIDTH, Moments

BATCH = 1 << 15
WHOLE = ("all", "all")
Key = tuple[str, str, str]  # cohort, group, arm


@dataclass(frozen=True)
class Batch:
    """Some users: ``seeds`` uint64 [n], ``arms`` [n] (null: in none), the group of each cohort of users [n], and
    ``sums`` [n, 1 + exposure groups, K].
    """

    seeds: np.ndarray
    arms: np.ndarray
    groups: tuple[np.ndarray, ...]
    sums: np.ndarray


class UserTable:
    """The users of ``learn_spark.ads.experiments.users.make_users``, without those in two arms."""

    def __init__(self, path: Path, user_cohorts: Sequence[str], exposure_groups: Sequence[tuple[str, str]]) -> None:
        self._path, self.user_cohorts, self.exposure_groups = path, tuple(user_cohorts), tuple(exposure_groups)

    def batches(self) -> Iterator[Batch]:
        """All users, in batches of BATCH at most."""
        columns = ["seed", "arm", "sums", *(f"g{number}" for number in range(len(self.user_cohorts)))]
        in_one_arm = ~ds.field("two_arms").is_valid() | ~ds.field("two_arms")
        # Arrow reads 16 batches ahead by default; computing takes longer than reading.
        ahead = {"batch_readahead": 1, "fragment_readahead": 1}
        table = ds.dataset(self._path, format="parquet")
        for batch in table.to_batches(columns=columns, filter=in_one_arm, batch_size=BATCH, **ahead):
            if not batch.num_rows:
                continue
            sums = batch.column("sums").flatten().to_numpy(zero_copy_only=False)
            yield Batch(
                batch.column("seed").to_numpy().view(np.uint64),
                _strings(batch.column("arm")),
                tuple(_strings(batch.column(f"g{number}")) for number in range(len(self.user_cohorts))),
                sums.reshape(batch.num_rows, 1 + len(self.exposure_groups), WIDTH),
            )

    def parts(self, batch: Batch, arms: Sequence[str]) -> Iterator[tuple[Key, np.ndarray, np.ndarray]]:
        """(cohort, group, arm), the rows [m] of the batch in it, and their sums [m, K]."""
        for arm in arms:
            inside = np.flatnonzero(batch.arms == arm)
            if not len(inside):
                continue
            yield (*WHOLE, arm), inside, batch.sums[inside, 0]
            for name, labels in zip(self.user_cohorts, batch.groups, strict=True):
                for label in np.unique(labels[inside]):
                    rows = inside[labels[inside] == label]
                    yield (name, str(label), arm), rows, batch.sums[rows, 0]
            for number, (name, label) in enumerate(self.exposure_groups, 1):
                yield (name, label, arm), inside, batch.sums[inside, number]

    def moments(self, arms: Sequence[str]) -> dict[Key, Moments]:
        """The moments of every part that has a user."""
        moments: dict[Key, Moments] = {}
        for batch in self.batches():
            for key, _, values in self.parts(batch, arms):
                part = Moments.of(values)
                moments[key] = moments[key].merged(part) if key in moments else part
        return moments

    def users_by_arm(self) -> dict[str, int]:
        """The number of users by arm."""
        users: dict[str, int] = {}
        for batch in self.batches():
            for arm, count in zip(*np.unique(batch.arms[batch.arms != ""], return_counts=True), strict=True):
                users[str(arm)] = users.get(str(arm), 0) + int(count)
        return users


def _strings(column: pa.Array) -> np.ndarray:
    return column.fill_null("").to_numpy(zero_copy_only=False).astype(str)
