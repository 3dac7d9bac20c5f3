"""The trained models of a workspace, and what becomes of models that another version saved."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings import load_settings
from learn_spark.core.tables.runs import Run, last_done, record
from learn_spark.core.tables.workspace import Workspace
from learn_spark.model.manifest import FORMAT, ModelError, ModelFormatError, read_manifest
from learn_spark.model.store import load_model, save_model
from learn_spark.model.trained import newest_model, trained_models
from tests.model.facts import training_facts
from tests.model.training.planted import make_tower

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(str(tmp_path / "workspace"))


def saved(workspace: Workspace, day: int, *, trial: bool = False) -> str:
    """A model of a train run on this day."""
    facts = training_facts(seed=day, trial=trial)
    model_id = save_model(workspace, make_tower("sasrec"), facts, [], load_settings("movielens-sasrec"))
    written = {f"models/{model_id}": model_id}
    record(workspace, Run(f"r{day}", "train", "done", "c", "v", {}, written, {}, 1.0, START + timedelta(days=day)))
    return model_id


def rewrite(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_models_are_found_newest_first_and_trials_only_if_asked_for(workspace: Workspace) -> None:
    with pytest.raises(LearnSparkError, match="learn-spark train makes one"):
        newest_model(workspace)
    first, second, trial = saved(workspace, 1), saved(workspace, 2), saved(workspace, 3, trial=True)
    assert [one.model_id for one in trained_models(workspace)] == [second, first]
    every = trained_models(workspace, trials=True)
    assert [(one.model_id, one.run.run_id) for one in every] == [(trial, "r3"), (second, "r2"), (first, "r1")]
    assert newest_model(workspace).model_id == second
    (workspace.root / "models" / second / "manifest.json").unlink()
    assert newest_model(workspace).model_id == first


def test_a_model_of_another_format_is_left_out_and_refused_before_its_weights_are_read(workspace: Workspace) -> None:
    old, new = saved(workspace, 1), saved(workspace, 2)
    folder = workspace.root / "models" / old
    rewrite(folder, format=FORMAT - 1, chosen_weights="a key of that time")
    (folder / "model.safetensors").write_bytes(b"damaged")
    for read in (read_manifest, load_model):
        with pytest.raises(ModelFormatError, match=f"has format {FORMAT - 1}, .* format {FORMAT}: learn-spark train"):
            read(folder)
    assert [one.model_id for one in trained_models(workspace)] == [new]
    rewrite(workspace.root / "models" / new, format=None)
    with pytest.raises(
        ModelFormatError, match=r"none of the 2 trained models .* learn-spark train --force makes a new one"
    ):
        newest_model(workspace)


@pytest.mark.parametrize(("change", "named"), [({"window": "five"}, "window"), ({"unknown": 1}, "unknown")])
def test_a_manifest_with_other_fields_is_damaged(workspace: Workspace, change: dict[str, object], named: str) -> None:
    folder = workspace.root / "models" / saved(workspace, 1)
    rewrite(folder, **change)
    with pytest.raises(ModelError, match=f"manifest.json is damaged: {named}: "):
        read_manifest(folder)


def test_the_newest_model_is_the_one_recorded_last_whatever_the_clocks_were(workspace: Workspace) -> None:
    """A machine whose clock was two days ahead trained first."""
    ahead = saved(workspace, 3)
    assert newest_model(workspace).model_id == ahead
    right = saved(workspace, 1)
    assert newest_model(workspace).model_id == right
    newest = last_done(workspace, "train")
    assert newest is not None
    assert newest.model_id == right


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_the_files_of_a_model_have_the_modes_of_the_umask(workspace: Workspace, umask: int) -> None:
    before = os.umask(umask)
    try:
        folder = workspace.root / "models" / saved(workspace, umask)
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o666 & ~umask}
