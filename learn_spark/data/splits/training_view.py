"""User histories without test events: the only way in which training reads user_histories."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar

import pyarrow as pa

from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.data.splits.counts import HistoryCounts
from learn_spark.data.splits.sample import UserSample
from learn_spark.data.splits.selection import Selection, columns_of, shifted, shifted_table
from learn_spark.data.splits.split import with_target, with_validation, without_test

Stream = TypeVar("Stream")
Until = Literal["train_length", "validation_length"]
COLUMNS = [
    "user_id",
    "chunk",
    "item_index",
    "event_time",
    "length",
    "train_end",
    "train_length",
    "validation_length",
]
PART_ROWS = 8_192


@dataclass(frozen=True)
class TrainingView:
    """One version of user_histories from which no test event can be read.

    Training and the choice of an epoch get this view and no snapshot, so that neither batches nor weights nor the
    choice can depend on a test event. With a ``selection`` other than validation, no validation event can be read
    either: the selection targets, which are training events, stand for the validation targets in all that follows.
    """

    _snapshot: Snapshot = field(repr=False)
    selection: Selection = "validation"

    @staticmethod
    def open(path: str, version: int, selection: Selection = "validation") -> TrainingView:
        """The view of one version of the table at ``path``. Raises SnapshotError as ``Snapshot.open``."""
        return TrainingView(Snapshot.open(path, version), selection)

    @property
    def version(self) -> int:
        """The version of the table."""
        return self._snapshot.version

    @property
    def rows(self) -> int:
        """Number of rows, from the log."""
        return self._snapshot.rows

    def parts(self, *, until: Until = "train_length") -> Iterator[pa.Table]:
        """All rows, at most PART_ROWS at a time, with the columns of COLUMNS.

        Events from ``validation_length`` on are padding (``without_test``). ``until`` validation_length: validation
        events are training events (``with_validation``).
        """
        for batch in self._snapshot.batches(COLUMNS, PART_ROWS):
            part = without_test(shifted_table(pa.Table.from_batches([batch]), self.selection))
            yield part if until == "train_length" else with_validation(part)

    def counts(self, n_items: int, *, until: Until = "train_length") -> HistoryCounts:
        """The counts over a catalogue of ``n_items``, by one pass over ``parts``."""
        return HistoryCounts.of(self.parts(until=until), n_items)

    def validation_sample(self, users: int) -> pa.Table:
        """The rows of at most ``users`` users with a validation target, as ``parts`` gives them; the same users in
        every run. All such users where there are fewer.
        """
        sample = UserSample()
        if self.rows > users:
            columns = ["user_id", "chunk", "train_length", "validation_length", *columns_of(self.selection)]
            narrow = self._snapshot.batches(list(dict.fromkeys(columns)), PART_ROWS)
            parts = (shifted_table(pa.Table.from_batches([batch]), self.selection) for batch in narrow)
            sample = UserSample.of((with_target(part, "validation") for part in parts), users)
        chosen = [sample.rows(with_target(part, "validation")) for part in self.parts()]
        return pa.concat_tables(chosen)

    def user_parts(self, users: int | None, *, until: Until = "train_length") -> Iterator[pa.Table]:
        """The ``parts`` with the rows of at most ``users`` users (None: all), the same ones in every run."""
        sample = self.sample(users)
        for part in self.parts(until=until):
            yield sample.rows(part)

    def sample(self, users: int | None) -> UserSample:
        """At most ``users`` users (None: all), the same ones in every run."""
        if users is None or self.rows <= users:
            return UserSample()
        narrow = self._snapshot.batches(["user_id", "chunk"], PART_ROWS)
        return UserSample.of((pa.Table.from_batches([batch]) for batch in narrow), users)

    def stream(
        self, open_stream: Callable[..., Stream], columns: list[str], *, until: Until = "train_length", **options: Any
    ) -> Stream:
        """``open_stream(snapshot, columns, until=..., length_column=..., **options)``, a HistoryStream in which every
        event from ``until`` on is padding. ``until``, train_length or validation_length, must be one of ``columns``.
        """
        if self.selection != "validation":
            columns = list(dict.fromkeys([*columns, *columns_of(self.selection)]))
            options["transform"] = partial(shifted, selection=self.selection)
            options["transform_columns"] = columns_of(self.selection)
        return open_stream(self._snapshot, columns, until=until, length_column=until, **options)
