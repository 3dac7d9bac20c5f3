"""The users of a split that an evaluation ranks, and their rows of user_histories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.times import DAY
from learn_spark.data.splits.sample import UserSample
from learn_spark.data.splits.split import LENGTHS, SplitName, target_times, with_target, with_validation
from learn_spark.data.splits.training_view import COLUMNS, PART_ROWS, Until


def ranked_users(histories: Snapshot, split: SplitName, users: int | None) -> tuple[int, UserSample]:
    """(number of users to rank, which): at most ``users`` (None: all) of those with a target on ``split``, the same
    ones in every run.
    """
    narrow = ["user_id", "chunk", *LENGTHS[split]] if users is not None else ["chunk", *LENGTHS[split]]
    counted = 0

    def parts() -> Iterator[pa.Table]:
        nonlocal counted
        for batch in histories.batches(narrow, PART_ROWS):
            part = with_target(pa.Table.from_batches([batch]), split)
            counted += int((part["chunk"].to_numpy() == 0).sum())
            yield part

    if users is None:
        for _ in parts():
            pass
        return counted, UserSample()
    sample = UserSample.of(parts(), users)
    return min(counted, users), sample


def ranked_rows(histories: Snapshot, split: SplitName, sample: UserSample, until: Until = "train_length") -> pa.Table:
    """The rows of the users of ``sample`` with a target on ``split``.

    Besides them, PART_ROWS rows are in memory at a time. ``until`` validation_length: validation events count as
    training events.
    """
    rows = list(ranked_parts(histories, split, sample))
    chosen = pa.concat_tables(rows) if rows else contract("user_histories").arrow_schema().empty_table()
    return chosen if until == "train_length" else with_validation(chosen)


def ranked_parts(histories: Snapshot, split: SplitName, sample: UserSample) -> Iterator[pa.Table]:
    """The rows of the users of ``sample`` with a target on ``split``; PART_ROWS rows are in memory at a time."""
    for batch in histories.batches(COLUMNS, PART_ROWS):
        yield sample.rows(with_target(pa.Table.from_batches([batch]), split))


def target_days(parts: Iterable[pa.Table], split: SplitName) -> Counter[int]:
    """The number of targets in the rows of ``parts`` by whole days (UTC) since 1970-01-01."""
    days: Counter[int] = Counter()
    for part in parts:
        distinct, counts = np.unique(target_times(part, split) // DAY, return_counts=True)
        days.update(dict(zip(distinct.tolist(), counts.tolist(), strict=True)))
    return days
