"""The public Python interface: ``import learn_spark as ls``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import learn_spark as ls
from learn_spark.core.errors import LearnSparkError, SettingsError
from learn_spark.core.settings import save_settings
from learn_spark.core.settings.encoder import EncoderSettings
from learn_spark.encoder.api import encode
from learn_spark.features.read import NoReleaseError, released_arrow
from learn_spark.report.explain import explain
from tests.encoder.tiny import tiny_model
from tests.report.test_explain import workspace as planted_workspace
from tests.shelf import SETTINGS, Shelf, reading

released = planted_workspace  # users u, v and 1, items a to f, two releases


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("api") / "shelf", reading())


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, learn_spark; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pyspark", "pyarrow", "numpy", "pandas", "deltalake", "pydantic"} & set(loaded)


def test_a_workspace_opens_by_its_settings_and_by_its_folder(shelf: Shelf) -> None:
    short = [*SETTINGS, "training.epochs=1"]
    ws = ls.open(shelf.config, short)
    assert ws.workspace.root == shelf.workspace.root
    with pytest.raises(SettingsError, match="no stage has run"):
        ls.open(shelf.workspace.root)
    run, _ = shelf.run("train", "training.epochs=1")
    assert [f"models/{one.model_id}" for one in ws.models()] == list(run.outputs)
    # The stage rests, for the same settings trained the same model.
    (outcome,) = ws.run(["train"], quiet=True)
    assert (outcome.up_to_date, outcome.run.run_id) == (True, run.run_id)
    with pytest.raises(LearnSparkError, match="no_such_stage"):
        ws.run(["no_such_stage"], quiet=True)


def test_a_folder_has_the_settings_of_its_newest_run(shelf: Shelf) -> None:
    runs = shelf.workspace.folder("runs")
    for number, epochs in ((1, 3), (2, 7)):
        save_settings(shelf.settings(f"training.epochs={epochs}"), runs / f"2024010{number}T000000-aaaaaaaa")
    assert ls.open(str(shelf.workspace.root)).settings.training.epochs == 7
    changed = ls.open(shelf.workspace.root, ["training.epochs=9"]).settings
    assert (changed.training.epochs, changed.workspace) == (9, str(shelf.workspace.root))


def test_recommendations_and_features_are_the_releases(released: object, shelf: Shelf) -> None:
    ws = ls.OpenWorkspace(released, Path("unused.yaml"))  # type: ignore[arg-type]
    found = ws.recommend("v", k=3)
    assert [(one.item_id, one.score) for one in found] == [("e", 1.0), ("f", 1.0), ("d", pytest.approx(0.96))]
    assert found == list(explain(ws.workspace, "v", k=3).recommendations)
    assert ws.features("item_features").equals(released_arrow(ws.workspace, "item_features"))
    assert ws.features("user_features", "r1")["user_id"].to_pylist() == ["u"]
    with pytest.raises(NoReleaseError):
        ls.open(shelf.config, SETTINGS).features("item_features")


def test_texts_are_encoded_by_name(tmp_path: Path, llm_folder: Path) -> None:
    model = tiny_model("gpt2", tmp_path / "model", llm_folder)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    vectors = ls.encode(["a lamp", "a rug"], str(model), max_tokens=16)
    assert np.array_equal(vectors, encode(["a lamp", "a rug"], EncoderSettings(model=str(model), max_tokens=16)))
    with pytest.raises(ValueError, match="max_tokens"):
        ls.encode(["a"], str(model), max_tokens=0)
