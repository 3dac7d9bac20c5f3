"""Bands of items by training events, of users by history, of targets by time: numbers in, names of slices out."""

from __future__ import annotations

import numpy as np

from learn_spark.core.times import DAY

POPULARITY = {0: "unseen", 1: "1-4", 5: "5-19", 20: "20-99", 100: "100+"}
MASS = {0.0: "head", 0.5: "mid", 0.8: "tail"}
HISTORY = {0: "1-4", 5: "5-9", 10: "10-19", 20: "20-49", 50: "50+"}
RECENCY = {0: "under 1", 1: "1-6", 7: "7-29", 30: "30-89", 90: "90-364", 365: "365+"}
QUARTERS = 4


def _band(values: np.ndarray, bands: dict[int, str] | dict[float, str]) -> np.ndarray:
    """The name [n] of the band of each of ``values`` [n]: the last band that begins at or below it."""
    return np.array(list(bands.values()))[np.searchsorted(list(bands), values, side="right") - 1]


def popularity_band(counts: np.ndarray) -> np.ndarray:
    """Bands [N] of items by training ``counts`` [N]: unseen, 1-4, 5-19, 20-99, 100+."""
    return _band(counts, POPULARITY)


def mass_band(counts: np.ndarray) -> np.ndarray:
    """Bands [N] of items by the share of all training events that belongs to items with more events.

    Below 0.5 is head, below 0.8 mid, else tail. Items with equally many events are in one band; items without an event
    are tail.
    """
    rising = np.sort(counts)
    sums = np.concatenate([[0], np.cumsum(rising)])
    above = sums[-1] - sums[np.searchsorted(rising, counts, side="right")]
    share = np.where(counts > 0, above / max(1, sums[-1]), 1.0)
    return _band(share, MASS)


def history_band(lengths: np.ndarray) -> np.ndarray:
    """Bands [B] of users by their events before the first target: 1-4, 5-9, 10-19, 20-49, 50+."""
    return _band(lengths, HISTORY)


def recency_band(last: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Bands [B] by whole days between a user's last event and their first target, both [B] in microseconds."""
    return _band((target - last) // DAY, RECENCY)


def quarter(times: np.ndarray) -> np.ndarray:
    """The quarter [T] that each target lies in by ``times`` [T] in microseconds, named by its first and last day.

    Targets of the same time are in one quarter, so that quarters can differ in size. Quarters within the same day are
    one.
    """
    if not len(times):
        return np.zeros(0, dtype="<U1")
    rising = np.sort(times)
    bounds = rising[[len(times) * number // QUARTERS for number in range(1, QUARTERS)]]
    number = np.searchsorted(bounds, times, side="right")
    names = np.full(QUARTERS, "", dtype="<U22")
    for quarter_number in np.unique(number):
        inside = times[number == quarter_number]
        first, last = (str(time.astype("M8[us]"))[:10] for time in (inside.min(), inside.max()))
        names[quarter_number] = f"{first}..{last}"
    return names[number]


def same_day(before: np.ndarray, target: np.ndarray) -> np.ndarray:
    """yes or no [T]: whether a target is on the same day (UTC) as the event before it; both [T] in microseconds."""
    return np.where(before // DAY == target // DAY, "yes", "no")
