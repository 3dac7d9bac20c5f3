"""The targets by which training chooses an epoch and fits blending and reranker: ``training.rule`` says which.

Under rule strict they are taken from the training events, so that no validation event is read at all. This is nested
validation: the outer split (validation, test) is for figures alone, the inner one for choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pyarrow as pa

from learn_spark.core.ragged import fixed_lists
from learn_spark.core.settings.schema import Settings
from learn_spark.core.times import DAY

Selection = Literal["validation", "last_event", "last_day"]
Rows = Mapping[str, np.ndarray]


def selection_of(settings: Settings) -> Selection:
    """The selection targets of ``settings``: the validation split's, or under rule strict each user's last training
    event; under protocol last_day, the events of the last training day.
    """
    if settings.training.rule != "strict":
        return "validation"
    return "last_day" if settings.histories.protocol == "last_day" else "last_event"


def columns_of(selection: Selection) -> list[str]:
    """The columns of user_histories that ``shifted`` reads."""
    if selection == "validation":
        return []
    needed = ["chunk", "length", "train_length", "validation_length"]
    return [*needed, "event_time"] if selection == "last_day" else needed


def selection_lengths(rows: Rows, selection: Selection) -> np.ndarray:
    """The number of events [rows] before each row's selection targets; ``train_length`` where a row has none.

    Rows with a validation or test target have selection targets, if an earlier training event is left.
    """
    train = rows["train_length"].astype(np.int64)
    if selection == "validation":
        return train
    before = np.maximum(train - 1, 0)
    if selection == "last_day":
        days = rows["event_time"] // DAY
        of_last_day = days == days[np.arange(len(train)), before][:, None]
        before = train - (of_last_day & (np.arange(days.shape[1]) < train[:, None])).sum(axis=1)
    chosen = (rows["chunk"] == 0) & (rows["length"] > train) & (before > 0)
    return np.where(chosen, before, train)


def shifted(rows: Rows, selection: Selection) -> Rows:
    """``rows`` of ``columns_of`` and more, with the selection targets as their validation targets: ``train_length``
    ends before them, and ``validation_length`` where training events end. Later events are no training events.
    """
    if selection == "validation":
        return rows
    kind = rows["train_length"].dtype
    lengths = selection_lengths(rows, selection).astype(kind)
    return {**rows, "train_length": lengths, "validation_length": rows["train_length"]}


def shifted_table(histories: pa.Table, selection: Selection) -> pa.Table:
    """``shifted`` for a table of user_histories."""
    if selection == "validation":
        return histories
    rows = {
        name: fixed_lists(histories[name]) if name == "event_time" else histories[name].to_numpy()
        for name in columns_of(selection)
    }
    lengths = shifted(rows, selection)
    for name in ("train_length", "validation_length"):
        field = histories.schema.field(name)
        column = pa.array(lengths[name], field.type)
        histories = histories.set_column(histories.column_names.index(name), field, column)
    return histories
