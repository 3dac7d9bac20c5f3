"""User histories without test events: the only way in which training reads user_histories."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import pyarrow as pa

from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.data.splits.split import without_test

Stream = TypeVar("Stream")
Until = Literal["train_length", "validation_length"]


@dataclass(frozen=True)
class TrainingView:
    """One version of user_histories from which no test event can be read.

    Training and the choice of an epoch get this view and no snapshot, so that neither batches nor weights nor the
    choice can depend on a test event.
    """

    _snapshot: Snapshot = field(repr=False)

    @staticmethod
    def open(path: str, version: int) -> TrainingView:
        """The view of one version of the table at ``path``. Raises SnapshotError as ``Snapshot.open``."""
        return TrainingView(Snapshot.open(path, version))

    @property
    def rows(self) -> int:
        """Number of rows, from the log."""
        return self._snapshot.rows

    def to_arrow(self) -> pa.Table:
        """All rows; events from ``validation_length`` on are padding (``without_test``)."""
        return without_test(self._snapshot.to_arrow())

    def stream(
        self, open_stream: Callable[..., Stream], columns: list[str], *, until: Until = "train_length", **options: Any
    ) -> Stream:
        """``open_stream(snapshot, columns, until=..., length_column=..., **options)``, a HistoryStream in which every
        event from ``until`` on is padding. ``until``, train_length or validation_length, must be one of ``columns``.
        """
        return open_stream(self._snapshot, columns, until=until, length_column=until, **options)
