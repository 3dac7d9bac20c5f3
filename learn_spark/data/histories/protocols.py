"""How each protocol splits a history into training, validation and test events. docs/protocols.md compares them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from learn_spark.core.settings.histories import HistoriesSettings
from learn_spark.core.times import DAY


@dataclass(frozen=True)
class Lengths:
    """Columns train_end, train_length and validation_length of user_histories, each [rows]
    (schemas/user_histories.yaml).
    """

    train_end: np.ndarray
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
        """Lengths of rows of ``length`` [rows] events; chunks above 0 are training only."""
        enough = (length > self.validation + self.test) & (chunk == 0)
        train = np.where(enough, length - self.validation - self.test, length)
        return Lengths(np.zeros_like(length), train, np.where(enough, length - self.test, length))


LEAVE_OUT = {
    "leave_last_out": LeaveOut(validation=1, test=1),
    # Meta, generative-recommenders, research/data/preprocessor.py: no validation set.
    "books_meta": LeaveOut(validation=0, test=1, core=5),
    # HLLM, process_books.py and REC: the event before the last is the validation target.
    "books_hllm": LeaveOut(validation=1, test=1, core=5),
}


def last_day_lengths(times: np.ndarray, length: np.ndarray) -> Lengths:
    """Lengths of rows of ``length`` [rows] events with ``times`` (microseconds, row after row, ascending).

    A row's test targets are all events of its last day (UTC), so that their order within the day does not matter. The
    events of the day before are validation targets unless it is the first day. A row of one day is training only.
    """
    ends = np.cumsum(length)
    row = np.repeat(np.arange(len(length)), length)
    begins = np.ones(len(times), bool)  # where a row's day begins
    begins[1:] = (np.diff(times // DAY) != 0) | (np.diff(row) != 0)
    starts_of_days = np.flatnonzero(begins)
    days = np.bincount(row[starts_of_days], minlength=len(length))
    newest = np.cumsum(days) - 1
    start = ends - length
    last = starts_of_days[newest] - start
    before = np.where(days > 2, starts_of_days[newest - (days > 2)] - start, last)
    return Lengths(np.zeros_like(length), np.where(days > 1, before, length), np.where(days > 1, last, length))


def core(settings: HistoriesSettings) -> int:
    """The minimum number of events of users and items; 0: no minimum."""
    return LEAVE_OUT[settings.protocol].core if settings.protocol in LEAVE_OUT else 0


def targets_at_the_end(settings: HistoriesSettings) -> int:
    """Number of events of chunk 0 that are targets; a long user's older chunks are shorter by this number."""
    rule = LEAVE_OUT.get(settings.protocol)
    return rule.validation + rule.test if rule else 0


TRAINING, VALIDATION, TEST = 0, 1, 2


def before_split_lengths(history: np.ndarray, length: np.ndarray, role: np.ndarray) -> Lengths:
    """Lengths of rows whose first ``history`` [rows] events are before T, where users train on these only.

    Events from T on are targets of users with role VALIDATION or TEST; rows of other users must have none.
    """
    return Lengths(np.zeros_like(length), history.copy(), np.where(role == VALIDATION, length, history))


def time_split_lengths(history: np.ndarray, length: np.ndarray, role: np.ndarray) -> Lengths:
    """Lengths of rows whose first ``history`` [rows] events are before T (LEARN section 4, industrial data set).

    For training users, events before T are history and events from T on are targets. Held-out users (role VALIDATION
    or TEST) do not train on events from T on: these are their targets.
    """
    train, validation, train_end = history.copy(), history.copy(), length.copy()
    sample = (role == TRAINING) & (history > 0) & (history < length)
    train_end[sample] = history[sample]
    train[sample] = length[sample]
    validation[(role == TRAINING) | (role == VALIDATION)] = length[(role == TRAINING) | (role == VALIDATION)]
    return Lengths(train_end, train, validation)
