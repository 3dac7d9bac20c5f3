"""What a ranker's inputs are scaled by: sums over its training exposures, read a window at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from learn_spark.ads.inputs.vocabulary import UNKNOWN
from learn_spark.ads.rankers.inputs import InputSource, windows

LEAST_RATE = 1e-6  # the rate is kept so far away from 0 and 1


@dataclass(frozen=True)
class TrainingStatistics:
    """``mean_weight`` of the training exposures; ``rate``, their weighted share of conversions; ``frequencies`` of each
    field: the number of training exposures of each embedding row, 0 for UNKNOWN, up to the last row that has some.
    """

    mean_weight: float
    rate: float
    frequencies: tuple[np.ndarray, ...]


def statistics_of(train: InputSource) -> TrainingStatistics:
    """The statistics of all exposures of ``train``, in one pass."""
    weight = converted = 0.0
    frequencies: list[np.ndarray] = []
    for window in windows(train):
        weight += float(window.weight.sum(dtype=np.float64))
        converted += float(window.weight[window.label > 0].sum(dtype=np.float64))
        frequencies = frequencies or [np.zeros(0, np.int64) for _ in range(window.rows.shape[1])]
        for field, rows in enumerate(window.rows.T):
            seen = np.bincount(rows, minlength=len(frequencies[field]))
            seen[: len(frequencies[field])] += frequencies[field]
            frequencies[field] = seen
    for seen in frequencies:
        seen[UNKNOWN] = 0
    rate = min(max(converted / weight, LEAST_RATE), 1 - LEAST_RATE)
    return TrainingStatistics(weight / len(train), rate, tuple(frequencies))
