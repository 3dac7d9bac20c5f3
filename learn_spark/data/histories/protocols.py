"""How a history is cut into training, validation and test: arrays in, arrays out. docs/protocols.md compares them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from learn_spark.core.settings.histories import HistoriesSettings


@dataclass(frozen=True)
class Lengths:
    """Where rows are cut, each [rows]; schemas/user_histories.yaml tells what they mean."""

    cut: np.ndarray
    train: np.ndarray
    validation: np.ndarray


@dataclass(frozen=True)
class LeaveOut:
    """The last events of a user are targets: ``validation`` of them, then ``test`` of them.

    A user with fewer than ``validation + test + 1`` events has no targets: all its events are training. Users and
    items with fewer than ``core`` events are left out (counted once, not until nothing changes), then users with
    fewer than ``core`` events left.
    """

    validation: int
    test: int
    core: int = 0

    def lengths(self, length: np.ndarray, chunk: np.ndarray) -> Lengths:
        """The cuts of rows of ``length`` events; chunks above 0 are training alone."""
        enough = (length > self.validation + self.test) & (chunk == 0)
        train = np.where(enough, length - self.validation - self.test, length)
        return Lengths(np.zeros_like(length), train, np.where(enough, length - self.test, length))


LEAVE_OUT = {
    "leave_last_out": LeaveOut(validation=1, test=1),
    # Meta, generative-recommenders, research/data/preprocessor.py: no validation set.
    "books_meta": LeaveOut(validation=0, test=1, core=5),
    # HLLM, process_books.py and REC: the last event but one is the validation target.
    "books_hllm": LeaveOut(validation=1, test=1, core=5),
}


DAY = 86_400_000_000  # microseconds


def last_day_lengths(times: np.ndarray, length: np.ndarray) -> Lengths:
    """Cuts of rows of ``length`` [rows] events, whose ``times`` (microseconds, row after row, ascending) are given.

    A row's targets are all events of its last day (UTC): in what order they stand within it decides nothing. Those of
    the day before are for validation, where it is not the first; a row of one day alone is training.
    """
    ends = np.cumsum(length)
    row = np.repeat(np.arange(len(length)), length)
    begins = np.ones(len(times), bool)  # where a row's day begins
    begins[1:] = (np.diff(times // DAY) != 0) | (np.diff(row) != 0)
    found = np.flatnonzero(begins)
    days = np.bincount(row[found], minlength=len(length))
    newest = np.cumsum(days) - 1
    start = ends - length
    last = found[newest] - start
    before = np.where(days > 2, found[newest - (days > 2)] - start, last)
    return Lengths(np.zeros_like(length), np.where(days > 1, before, length), np.where(days > 1, last, length))


def core(settings: HistoriesSettings) -> int:
    """The least events of users and items; 0 for no least."""
    return LEAVE_OUT[settings.protocol].core if settings.protocol in LEAVE_OUT else 0


def targets_at_the_end(settings: HistoriesSettings) -> int:
    """Events of chunk 0 that are targets and not training; a long user's older chunks are shorter by them."""
    rule = LEAVE_OUT.get(settings.protocol)
    return rule.validation + rule.test if rule else 0


TRAINING, VALIDATION, TEST = 0, 1, 2


def before_cut_lengths(history: np.ndarray, length: np.ndarray, role: np.ndarray) -> Lengths:
    """Cuts of rows [rows] whose first ``history`` events lie before T, where all users train on those alone.

    What lies behind T is ranked for users with a role; of others nothing may be left there.
    """
    return Lengths(np.zeros_like(length), history.copy(), np.where(role == VALIDATION, length, history))


def time_split_lengths(history: np.ndarray, length: np.ndarray, role: np.ndarray) -> Lengths:
    """Cuts of rows [rows] whose first ``history`` events lie before T (LEARN section 4, industrial data set).

    Training users are cut at T, history into target. Held-out users (role VALIDATION or TEST) train on nothing
    behind T: their targets there are ranked.
    """
    train, validation, cut = history.copy(), history.copy(), length.copy()
    sample = (role == TRAINING) & (history > 0) & (history < length)
    cut[sample] = history[sample]
    train[sample] = length[sample]
    validation[(role == TRAINING) | (role == VALIDATION)] = length[(role == TRAINING) | (role == VALIDATION)]
    return Lengths(cut, train, validation)
