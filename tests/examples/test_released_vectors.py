"""onnxruntime gives the vectors that a road with the quickstart's tower released, for every user."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

import learn_spark as ls
from learn_spark.core.console import Reporter
from learn_spark.core.ragged import fixed_lists
from learn_spark.core.settings import load_settings
from learn_spark.core.storage.path import storage_path
from learn_spark.features.export.folder import export_user_tower
from learn_spark.features.pinned_model import PinnedModel
from learn_spark.report.explain import explain
from tests.examples.library import READERS, WORKSPACE


def test_onnxruntime_gives_the_released_vector_of_every_user(library: Path, tmp_path: Path) -> None:
    shop = ls.open(shutil.copytree(library / WORKSPACE, tmp_path / "workspace"))
    quickstart = load_settings("quickstart")
    assert shop.settings.tower == quickstart.tower
    assert shop.settings.embedding_space == quickstart.embedding_space
    pinned = PinnedModel.open(shop.workspace, shop.settings)
    export_user_tower(pinned, storage_path(tmp_path / "served"), "onnx", Reporter(quiet=True))
    tower, users = ls.user_tower(tmp_path / "served"), shop.features("user_features")
    readers = users["user_id"].to_pylist()
    assert len(readers) == READERS
    histories = [[event.item_id for event in explain(shop.workspace, one).history] for one in readers]
    found, released = tower.vectors(histories), fixed_lists(users["embedding"])
    assert np.abs(found - released).max() < 1e-4
    # Two readers have different vectors, so that the order of readers matters.
    assert np.abs(found - np.roll(released, 1, axis=0)).max(axis=1).min() > 1e-3
