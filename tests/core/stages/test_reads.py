"""A stage reads, and runs again for, only the tables that it reads under its settings."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from learn_spark.core.errors import LearnSparkError
from tests.shelf import RIVAL, Shelf, reading

TEXTS = ("item_text", "text_embeddings")


def test_a_tower_over_ids_trains_without_texts(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "here", reading())
    with_texts, _ = shelf.run("train", *RIVAL, "training.epochs=1")
    assert set(with_texts.inputs) == {"user_histories", "item_index"}
    for table in TEXTS:
        shutil.rmtree(shelf.workspace.root / "tables" / table)
    without, _ = shelf.run("train", *RIVAL, "training.epochs=1", forced=True)
    assert without.outputs == with_texts.outputs  # the id of a model is a hash of its weights
    with pytest.raises(LearnSparkError, match="train reads the table item_text"):
        shelf.run("train", "training.epochs=1")


def test_a_tower_over_content_reads_them(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "here", reading())
    run, _ = shelf.run("train", "training.epochs=1")
    assert set(run.inputs) == {"user_histories", "item_index", *TEXTS}
