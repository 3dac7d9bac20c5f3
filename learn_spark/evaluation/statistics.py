"""What evaluation counts in the histories of all users, by one pass of bounded memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from learn_spark.core.ragged import check_ragged
from learn_spark.data.splits.sample import UserSample
from learn_spark.data.splits.split import sampled_events, training_events
from learn_spark.evaluation.baselines.markov import PairCounts


@dataclass(frozen=True)
class Statistics:
    """Counts of one table of histories over a catalogue of N items.

    ``counts`` [N] are the training events of each item (``training_events``), ``trained`` [N] its events in training
    samples (``trained_counts``), ``pairs`` consecutive training events. Memory: 16 bytes an item and 16 bytes a
    distinct pair, and as much again while pairs are merged.
    """

    counts: np.ndarray
    trained: np.ndarray
    pairs: PairCounts

    @staticmethod
    def of(parts: Iterable[pa.Table], n_items: int, pairs_of: UserSample | None = None) -> Statistics:
        """The statistics of all ``parts`` of a table together; one part is in memory at a time.

        Pairs are those of the users ``pairs_of`` (None: of all).
        """
        counts, trained, pairs = np.zeros(n_items, np.int64), np.zeros(n_items, np.int64), PairCounts(n_items)
        for part in parts:
            values, offsets = training_events(part)
            check_ragged(values, offsets, n_items)
            np.add.at(counts, values, 1)
            np.add.at(trained, sampled_events(part), 1)
            pairs.add(*(training_events(pairs_of.rows(part)) if pairs_of is not None else (values, offsets)))
        return Statistics(counts, trained, pairs)
