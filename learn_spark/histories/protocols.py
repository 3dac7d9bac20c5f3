"""How a history is cut into training, validation and test: pure Columns over a user's number of events."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column

Cut = Callable[["Column"], tuple["Column", "Column"]]


def leave_last_out(length: Column) -> tuple[Column, Column]:
    """(train_length, validation_length): the last event is the test target, the one before it the validation target.

    A user with fewer than three events has no targets: all its events are training.
    """
    from pyspark.sql import functions as F

    enough = length >= 3
    return F.when(enough, length - 2).otherwise(length), F.when(enough, length - 1).otherwise(length)


PROTOCOLS: dict[str, Cut] = {"leave_last_out": leave_last_out}
