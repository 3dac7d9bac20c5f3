"""The frozen embeddings as one matrix: each embedding at its item's index, whatever is missing named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from learn_spark.feed.item_matrix import MissingEmbeddings, item_matrix, item_matrix_path
from learn_spark.tables import delta
from learn_spark.tables.contracts import contract
from learn_spark.tables.snapshot import Snapshot


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
