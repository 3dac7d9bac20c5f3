"""The inputs of every ranker: rows of embedding tables, time of day and of week, rows of released vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from learn_spark.ads.rankers.exposures import Exposures
from learn_spark.ads.rankers.features import MASKED, Features
from learn_spark.ads.rankers.vocabulary import Vocabulary
from learn_spark.core.times import DAY

WEEK = 7 * DAY
MONDAY = 4 * DAY  # after 1970-01-01, a Thursday
CYCLIC_TIME_DIMS = 4


@dataclass(frozen=True)
class Inputs:
    """``rows`` [n, F] int32: the embedding row of each field; ``cyclic_time`` [n, 4] float32: hour and weekday, each as
    a point on a circle; ``user``, ``item`` [n] int32: rows of ``vectors`` [1 + R, D], MASKED for none; ``label``,
    ``weight`` [n] float32.
    """

    rows: np.ndarray
    cyclic_time: np.ndarray
    user: np.ndarray
    item: np.ndarray
    vectors: np.ndarray
    label: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, mask: np.ndarray) -> Inputs:
        """The exposures in ``mask`` [n] bool; the vectors are shared."""
        return Inputs(
            self.rows[mask],
            self.cyclic_time[mask],
            self.user[mask],
            self.item[mask],
            self.vectors,
            self.label[mask],
            self.weight[mask],
        )

    def wide(self, at: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(user vectors [b, D], item vectors [b, D], has_vector [b, 2] 1 or 0 for user and item) of rows ``at``."""
        user, item = self.user[at], self.item[at]
        has_vector = np.stack([user != MASKED, item != MASKED], axis=1).astype(np.float32)
        return self.vectors[user], self.vectors[item], has_vector


def inputs_of(exposures: Exposures, features: Features, vocabularies: Mapping[str, Vocabulary]) -> Inputs:
    """The inputs of ``exposures`` [n], fields in the order of ``vocabularies``."""
    return Inputs(
        np.stack([vocabulary.rows(exposures.fields[name]) for name, vocabulary in vocabularies.items()], axis=1),
        cyclic_time(exposures.time),
        features.user,
        features.item,
        features.vectors,
        exposures.label.astype(np.float32),
        exposures.weight.astype(np.float32),
    )


def cyclic_time(micros: np.ndarray) -> np.ndarray:
    """Sine and cosine of the time of day and of the time of the week (from Monday on; UTC), [n, 4] float32."""
    day = micros % DAY / DAY * 2 * np.pi
    week = (micros - MONDAY) % WEEK // DAY / 7 * 2 * np.pi
    return np.stack([np.sin(day), np.cos(day), np.sin(week), np.cos(week)], axis=1).astype(np.float32)
