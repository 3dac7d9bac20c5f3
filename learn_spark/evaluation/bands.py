"""Bands of items by training events, of users by history, of targets by time: numbers in, names of slices out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from learn_spark.core.times import DAY
from learn_spark.model.scoring.frequency import LEVELS

POPULARITY = dict(zip(LEVELS, ("unseen", "1-4", "5-19", "20-99", "100+"), strict=True))
MASS = {0.0: "head", 0.5: "mid", 0.8: "tail"}
HISTORY = {0: "1-4", 5: "5-9", 10: "10-19", 20: "20-49", 50: "50+"}
RECENCY = {0: "under 1", 1: "1-6", 7: "7-29", 30: "30-89", 90: "90-364", 365: "365+"}
QUARTERS = 4


def _band(values: np.ndarray, bands: dict[int, str] | dict[float, str]) -> np.ndarray:
    """The name [n] of the band of each of ``values`` [n]: the last band that begins at or below it."""
    return np.array(list(bands.values()))[_number(values, bands)]


def _number(values: np.ndarray, bands: dict[int, str] | dict[float, str]) -> np.ndarray:
    return (np.searchsorted(list(bands), values, side="right") - 1).astype(np.int8)


def popularity_band(counts: np.ndarray) -> np.ndarray:
    """Bands [N] of items by training ``counts`` [N]: unseen, 1-4, 5-19, 20-99, 100+."""
    return _band(counts, POPULARITY)


def popularity_numbers(counts: np.ndarray) -> np.ndarray:
    """The places [N] int8 of ``popularity_band`` in POPULARITY."""
    return _number(counts, POPULARITY)


def mass_band(counts: np.ndarray) -> np.ndarray:
    """The names [N] of ``mass_numbers``: head, mid, tail."""
    return np.array(list(MASS.values()))[mass_numbers(counts)]


def mass_numbers(counts: np.ndarray) -> np.ndarray:
    """Bands [N] of items, int8 places in MASS, by the share of all training events of items with more events.

    Below 0.5 is head, below 0.8 mid, else tail. Items with equally many events are in one band; items without an event
    are tail.
    """
    rising = np.sort(counts)
    sums = np.concatenate([[0], np.cumsum(rising)])
    above = sums[-1] - sums[np.searchsorted(rising, counts, side="right")]
    share = np.where(counts > 0, above / max(1, sums[-1]), 1.0)
    return _number(share, MASS)


def history_band(lengths: np.ndarray) -> np.ndarray:
    """Bands [B] of users by their events before the first target: 1-4, 5-9, 10-19, 20-49, 50+."""
    return _band(lengths, HISTORY)


def recency_band(last: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Bands [B] by whole days between a user's last event and their first target, both [B] in microseconds."""
    return _band((target - last) // DAY, RECENCY)


@dataclass(frozen=True)
class Quarters:
    """Days (UTC) in at most QUARTERS runs with about equally many targets; a day is in one of them.

    ``starts`` are the first days after 1970-01-01 of all runs but the first, ``names`` of all the first and the last
    day with a target.
    """

    starts: tuple[int, ...]
    names: tuple[str, ...]

    @staticmethod
    def of(targets: Mapping[int, int]) -> Quarters:
        """The quarters of numbers of ``targets`` by day."""
        days = np.array(sorted(targets), dtype=np.int64)
        upto = np.cumsum([targets[day] for day in days.tolist()])
        total = int(upto[-1]) if len(days) else 0
        # The day of the target at each quarter of all of them in order of time begins a run.
        places = [total * number // QUARTERS for number in range(1, QUARTERS)]
        starts = np.unique(days[np.searchsorted(upto, places, side="right")]) if total else days
        runs = np.split(days, np.searchsorted(days, starts[starts > days[0]])) if total else []
        names = tuple("..".join(str(np.datetime64(int(day), "D")) for day in (run[0], run[-1])) for run in runs)
        return Quarters(tuple(int(run[0]) for run in runs[1:]), names)

    def labels(self, times: np.ndarray) -> np.ndarray:
        """The names [T] of the quarters of targets at ``times`` [T] in microseconds."""
        if not len(times):
            return np.zeros(0, dtype="<U1")
        return np.array(self.names)[np.searchsorted(self.starts, days_of(times), side="right")]


def days_of(times: np.ndarray) -> np.ndarray:
    """Whole days (UTC) since 1970-01-01 [T] of ``times`` [T] in microseconds."""
    return times // DAY


def same_day(before: np.ndarray, target: np.ndarray) -> np.ndarray:
    """yes or no [T]: whether a target is on the same day (UTC) as the event before it; both [T] in microseconds."""
    return np.where(days_of(before) == days_of(target), "yes", "no")
