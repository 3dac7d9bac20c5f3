"""The feed: every row of one Delta snapshot exactly once an epoch, in an order that only (seed, epoch) decides."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from learn_spark.errors import LearnSparkError
from learn_spark.feed.item_matrix import MissingEmbeddings, item_matrix, item_matrix_path
from learn_spark.feed.stream import HistoryStream, RowsLost
from learn_spark.tables import delta
from learn_spark.tables.contracts import contract
from learn_spark.tables.snapshot import Snapshot

ROWS = 96


@pytest.fixture(scope="module")
def histories(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six files of sixteen users; user n has the item n + 1 first. One more file is written and removed again."""
    path = str(tmp_path_factory.mktemp("feed") / "user_histories")
    table = contract("user_histories")

    def frame(users: range) -> Any:
        data = [(f"u{n}", 0, [n + 1, 2, 0, 0], [5, 6, 0, 0], [1.0, 1.0, 0.0, 0.0], 2, 0, 2, 2, 2) for n in users]
        return spark.createDataFrame(data, table.spark_schema()).coalesce(1)

    for start in range(0, ROWS, 16):
        delta.append(frame(range(start, start + 16)), path, table)
    delta.append(frame(range(1000, 1016)), path, table)
    spark.sql(f"DELETE FROM delta.`{path}` WHERE item_index[0] > 1000")
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


def test_shuffling_mixes_files(histories: str) -> None:
    order = np.array(first_items(stream(histories, shuffle_rows=96), 0))
    # Neighbours of one file (16 users each) stand beside each other by chance only: 15 of 95 times.
    together = ((order[1:] - 1) // 16 == (order[:-1] - 1) // 16).mean()
    assert together < 0.3
    bounded = np.array(first_items(stream(histories, shuffle_rows=1), 0))
    assert sorted(bounded) == sorted(order)


def test_a_short_or_long_epoch_is_an_error_that_names_both_numbers(histories: str) -> None:
    snapshot = Snapshot.open(histories)
    lying = replace(snapshot, file_rows=(*snapshot.file_rows[:-1], snapshot.file_rows[-1] + 1))
    with pytest.raises(RowsLost, match=r"gave 96 rows.*has 97"):
        list(HistoryStream(lying, ["train_length"], shuffle_rows=8, seed=0).epoch(0, 8))
    fewer = replace(snapshot, files=snapshot.files[1:])
    with pytest.raises(RowsLost, match=r"gave 80 rows.*has 96"):
        list(HistoryStream(fewer, ["train_length"], shuffle_rows=8, seed=0).epoch(0, 8))
    twice = replace(snapshot, files=(*snapshot.files, snapshot.files[0]))
    with pytest.raises(RowsLost, match=r"gave 112 rows.*has 96"):
        list(HistoryStream(twice, ["train_length"], shuffle_rows=8, seed=0).epoch(0, 8))


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


def test_an_empty_snapshot_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    path = str(tmp_path / "empty")
    delta.create_if_missing(spark, path, contract("user_histories"))
    with pytest.raises(LearnSparkError, match="is empty"):
        stream(path)


def test_the_item_matrix_puts_each_embedding_at_its_index(spark: SparkSession, tmp_path: Path) -> None:
    def write(table: str, rows: list[tuple[Any, ...]]) -> Snapshot:
        path = str(tmp_path / table)
        delta.append(spark.createDataFrame(rows, contract(table).spark_schema()), path, contract(table))
        return Snapshot.open(path)

    key = "k" * 64
    index = write("item_index", [("a", 2), ("b", 1), ("c", 4)])
    text = write(
        "item_text",
        [
            ("a", "t/1", "A", "A" * 64),
            ("b", "t/1", "B", "B" * 64),
            ("c", "t/1", "A", "A" * 64),
            ("a", "t/2", "Z", "Z" * 64),
        ],
    )
    vectors = [(key, "A" * 64, [1.0, 2.0], 1), (key, "B" * 64, [3.0, 4.0], 1), ("other", "A" * 64, [9.0, 9.0, 9.0], 1)]
    embeddings = write("text_embeddings", vectors)

    def build(version: str = "t/1", encoder: str = key) -> Path:
        return item_matrix_path(
            index, text, embeddings, template_version=version, encoder_key=encoder, cache=tmp_path / "cache"
        )

    matrix = item_matrix(build())
    assert matrix.tolist() == [[0, 0], [3, 4], [1, 2], [0, 0], [1, 2]]
    assert isinstance(matrix, np.memmap)
    assert build().stat().st_mtime_ns == build().stat().st_mtime_ns
    with pytest.raises(MissingEmbeddings, match="3 of 3 items have no embedding"):
        build("t/2")
    with pytest.raises(MissingEmbeddings, match="1 of 3 items"):
        build(encoder="other")
