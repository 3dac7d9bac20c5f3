"""How each protocol splits a history into training, validation and test events. docs/protocols.md compares them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from learn_spark.core.settings.histories import HistoriesSettings, TimeSplitHistoriesSettings
from learn_spark.core.times import DAY

if TYPE_CHECKING:
    from pyspark.sql import Column


@dataclass(frozen=True)
class Lengths:
    """Columns train_end, train_length and validation_length of user_histories (schemas/user_histories.yaml)."""

    train_end: Column
    train: Column
    validation: Column


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

    def lengths(self, length: Column, chunk: Column) -> Lengths:
        """Lengths of rows of ``length`` events; chunks above 0 are training only."""
        enough = (length > self.validation + self.test) & (chunk == 0)
        train = F.when(enough, length - self.validation - self.test).otherwise(length)
        return Lengths(F.lit(0), train, F.when(enough, length - self.test).otherwise(length))


LEAVE_OUT = {
    "leave_last_out": LeaveOut(validation=1, test=1),
    # Meta, generative-recommenders, research/data/preprocessor.py: no validation set.
    "books_meta": LeaveOut(validation=0, test=1, core=5),
    # HLLM, process_books.py and REC: the event before the last is the validation target.
    "books_hllm": LeaveOut(validation=1, test=1, core=5),
}


def last_day_lengths(times: Column, length: Column) -> Lengths:
    """Lengths of rows of ``length`` events with ``times`` (arrays of microseconds, ascending).

    A row's test targets are all events of its last day (UTC), so that their order within the day does not matter. The
    events of the day before are validation targets unless it is the first day. A row of one day is training only.
    """

    def before_day_of(position: Column) -> Column:
        """Number of events before the day of the event at ``position``, from 1."""
        time = F.element_at(times, position)
        return F.size(F.filter(times, lambda other: other < time - F.pmod(time, F.lit(DAY))))

    last = before_day_of(F.lit(-1))
    day_before = before_day_of(F.greatest(F.lit(1), last))
    one_day = last == 0
    train = F.when(one_day, length).when(day_before > 0, day_before).otherwise(last)
    return Lengths(F.lit(0), train, F.when(one_day, length).otherwise(last))


def core(settings: HistoriesSettings) -> int:
    """The minimum number of events of users and items; 0: no minimum."""
    return LEAVE_OUT[settings.protocol].core if settings.protocol in LEAVE_OUT else 0


def targets_at_the_end(settings: HistoriesSettings) -> int:
    """Number of events of chunk 0 that are targets; a long user's older chunks are shorter by this number."""
    rule = LEAVE_OUT.get(settings.protocol)
    return rule.validation + rule.test if rule else 0


TRAINING, VALIDATION, TEST = 0, 1, 2


def role_of_user(settings: TimeSplitHistoriesSettings) -> Column:
    """The role of each user by a hash of the id, so that it does not depend on the log."""
    share = F.pmod(F.xxhash64("user_id", F.lit("held out")), F.lit(1_000_000)) / 1_000_000
    chosen = F.when(share < settings.held_out, TEST).when(share < 2 * settings.held_out, VALIDATION)
    return chosen.otherwise(TRAINING)


def before_split_lengths(history: Column, length: Column, role: Column) -> Lengths:
    """Lengths of rows whose first ``history`` events are before T, where users train on these only.

    Events from T on are targets of users with role VALIDATION or TEST; rows of other users must have none.
    """
    return Lengths(F.lit(0), history, F.when(role == VALIDATION, length).otherwise(history))


def time_split_lengths(history: Column, length: Column, role: Column) -> Lengths:
    """Lengths of rows whose first ``history`` events are before T (LEARN section 4, industrial data set).

    For training users, events before T are history and events from T on are targets. Held-out users (role VALIDATION
    or TEST) do not train on events from T on: these are their targets.
    """
    sample = (role == TRAINING) & (history > 0) & (history < length)
    return Lengths(
        F.when(sample, history).otherwise(length),
        F.when(sample, length).otherwise(history),
        F.when(role == TEST, history).otherwise(length),
    )
