"""What one pass over user histories counts: the events of every item, and the users that validation can rank."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.data.splits.split import sampled_events, training_events, with_target


@dataclass(frozen=True)
class HistoryCounts:
    """Counts of user histories over a catalogue of N items.

    ``events`` [N] are the training events of each item (``training_events``) and ``trained`` [N] its events in training
    samples (``trained_counts``); ``users`` is the number of users with a validation target.
    """

    events: np.ndarray
    trained: np.ndarray
    users: int

    @staticmethod
    def of(parts: Iterable[pa.Table], n_items: int) -> HistoryCounts:
        """The counts of all ``parts`` of a table together; one part is in memory at a time."""
        events, trained, users = np.zeros(n_items, np.int64), np.zeros(n_items, np.int64), 0
        for part in parts:
            np.add.at(events, training_events(part)[0], 1)
            np.add.at(trained, sampled_events(part), 1)
            users += int(pc.sum(pc.equal(with_target(part, "validation")["chunk"], 0)).as_py() or 0)
        return HistoryCounts(events, trained, users)
