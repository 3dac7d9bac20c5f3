"""Histories as samples for training by prefixes: one row for each event that has an event before it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from learn_spark.core.ragged import owners_of
from learn_spark.model.feed.shuffle import Rows, row_count

CELLS = 1 << 22  # of one column at once


class Prefixes:
    """Turns rows of histories into one row for each of their prefixes.

    A prefix ends before an event, which it predicts. Its row has the last ``history`` events of the prefix and the
    event it predicts: every list column [rows, L] becomes [samples, history + 1], right-padded with 0, and ``until``
    the number of these events. ``train_end`` is 0, and other columns are left out. A row predicts the events from its
    second one to the last before ``until``; a row whose training ends at its split (``train_end`` not below ``until``)
    has no sample.

    Raises ValueError for ``history`` below 1.
    """

    def __init__(self, *, until: str, history: int) -> None:
        if history < 1:
            raise ValueError(f"history {history} must be at least 1")
        self.until, self.history = until, history

    @property
    def columns(self) -> list[str]:
        """The columns that ``counts`` reads."""
        return [self.until, "train_end"]

    def counts(self, rows: Rows) -> np.ndarray:
        """The number of samples of each of ``rows``, [rows] int64."""
        lengths = rows[self.until].astype(np.int64)
        trained = (rows["train_end"] == 0) | (rows["train_end"] < lengths)
        return np.where(trained, np.maximum(lengths - 1, 0), 0)

    def samples(self, rows: Rows) -> Iterator[Rows]:
        """The samples of ``rows`` in their order, in one or more blocks of at most CELLS values a column (or of one
        row's samples, if these have more).
        """
        offsets = np.concatenate([[0], np.cumsum(self.counts(rows))])
        most = max(1, CELLS // (self.history + 1))
        first, count = 0, row_count(rows)
        while True:
            last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + most, side="right")) - 1)
            last = min(last, count)
            yield self._block(rows, np.arange(first, last), np.diff(offsets[first : last + 1]))
            if last >= count:
                return
            first = last

    def _block(self, rows: Rows, chosen: np.ndarray, counts: np.ndarray) -> Rows:
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        owner = owners_of(offsets)
        predicted = 1 + np.arange(len(owner)) - offsets[owner]  # [S], the event in its row
        start = np.maximum(predicted - self.history, 0)
        events = predicted - start + 1
        column = np.arange(self.history + 1)
        inside = column < events[:, None]  # [S, history + 1]
        at = np.where(inside, start[:, None] + column, 0)
        row = chosen[owner][:, None]
        samples = {
            name: np.where(inside, values[row, at], values.dtype.type(0))
            for name, values in rows.items()
            if values.ndim == 2
        }
        zeros = np.zeros(len(owner), rows["train_end"].dtype)
        return {**samples, self.until: events.astype(rows[self.until].dtype), "train_end": zeros}
