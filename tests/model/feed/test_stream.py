"""The feed over a Delta table: the rows of one snapshot, none that was removed, nothing unpickled."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.model.feed.stream import HistoryStream

ROWS = 96
SCHEMA = contract("user_histories").arrow_schema()


@pytest.fixture(scope="module")
def histories(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six files of sixteen users; user n has the item n + 1 first. One more file is written and removed again."""
    path = str(tmp_path_factory.mktemp("feed") / "user_histories")
    lengths = {"length": 2, "train_end": 0, "train_length": 2, "validation_length": 2, "n_events": 2}
    for start in (*range(0, ROWS, 16), 1000):
        users = [
            {
                "user_id": f"u{n}",
                "chunk": 0,
                "item_index": [n + 1, 2, 0, 0],
                "event_time": [5, 6, 0, 0],
                "weight": [1.0, 1.0, 0.0, 0.0],
                **lengths,
            }
            for n in range(start, start + 16)
        ]
        write_deltalake(path, pa.Table.from_pylist(users, schema=SCHEMA), mode="append")
    DeltaTable(path).delete("user_id >= 'u1000' and user_id < 'u1016'")
    return path


def stream(path: str, **settings: Any) -> HistoryStream:
    return HistoryStream(
        Snapshot.open(path), ["item_index", "train_length"], **{"shuffle_rows": 40, "seed": 1, **settings}
    )


def first_items(feed: HistoryStream, epoch: int, batch: int = 10) -> list[int]:
    return [int(item) for rows in feed.epoch(epoch, batch) for item in rows["item_index"][:, 0]]


def test_every_row_of_the_snapshot_once_and_no_removed_one(histories: str) -> None:
    assert len(list(Path(histories).glob("*.parquet"))) > 6
    feed = stream(histories)
    for epoch in range(4):
        batches = list(feed.epoch(epoch, 10))
        assert sorted(int(i) for rows in batches for i in rows["item_index"][:, 0]) == list(range(1, ROWS + 1))
        assert all(len(rows["train_length"]) == 10 for rows in batches[:-1])
        assert batches[0]["item_index"].shape == (10, 4)
        assert batches[0]["item_index"].dtype == np.int32


def test_the_order_is_a_function_of_seed_and_epoch(histories: str) -> None:
    assert first_items(stream(histories), 3) == first_items(stream(histories), 3)
    assert first_items(stream(histories), 3) != first_items(stream(histories), 4)
    assert first_items(stream(histories), 3) != first_items(stream(histories, seed=2), 3)


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_planted_pickle_in_the_folder_is_not_opened(histories: str, tmp_path: Path) -> None:
    (Path(histories) / "_common_metadata").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    try:
        assert len(first_items(stream(histories), 0)) == ROWS
    finally:
        (Path(histories) / "_common_metadata").unlink()
    assert not (tmp_path / "sprung").exists()


def test_an_empty_snapshot_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "empty")
    write_deltalake(path, SCHEMA.empty_table())
    with pytest.raises(LearnSparkError, match="has no rows; run histories"):
        stream(path)
