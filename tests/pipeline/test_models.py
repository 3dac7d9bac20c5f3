"""The list of trained models, and publishing one of them by its id."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.stages.registry import find_stage
from learn_spark.core.tables.log import read_rows
from learn_spark.features.models import usable_model
from learn_spark.model.manifest import read_manifest
from learn_spark.pipeline.models import list_models
from tests.shelf import RIVAL, Shelf, reading

FIRST, SECOND = ("training.epochs=1",), ("training.epochs=1", "training.seed=4")


class World:
    """Two LEARN models, the older one evaluated, and a SASRec model."""

    def __init__(self, folder: Path) -> None:
        self.shelf = Shelf(folder, reading())
        self.runs = []
        for overrides in (FIRST, SECOND, ("training.epochs=1", *RIVAL)):
            run, _ = self.shelf.run("train", *overrides)
            self.runs.append(run)
            if overrides == FIRST:
                self.shelf.run("evaluate", *FIRST)
        self.ids = [next(iter(run.outputs)).removeprefix("models/") for run in self.runs]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("models") / "shelf")


def test_models_are_listed_with_their_figures_newest_first(world: World) -> None:
    rows = list_models(world.shelf.workspace)
    assert [row.model_id for row in rows] == world.ids[::-1]
    assert [row.method for row in rows] == ["sasrec", "learn", "learn"]
    assert [row.run_id for row in rows] == [run.run_id for run in reversed(world.runs)]
    manifests = [read_manifest(world.shelf.workspace.root / "models" / row.model_id) for row in rows]
    assert [row.validation for row in rows] == [m.validation["NDCG@10"] for m in manifests]
    evaluations = read_rows(world.shelf.workspace.table("evaluations"))
    (expected,) = (
        r["value"]
        for r in evaluations
        if (r["model_id"], r["split"], r["metric"], r["method"]) == (world.ids[0], "test", "NDCG@10", "learn")
    )
    assert [row.test for row in rows] == [None, None, expected]
    assert not any("released" in row.tags for row in rows)


def test_evaluate_takes_the_model_that_is_named(world: World) -> None:
    stage, settings, workspace = find_stage("evaluate"), world.shelf.settings(), world.shelf.workspace
    assert stage.other_inputs(settings, workspace) == {"model": world.ids[2]}
    assert stage.other_inputs(settings, workspace, world.ids[0]) == {"model": world.ids[0]}
    with pytest.raises(LearnSparkError, match="no trained model 'nobody'"):
        stage.other_inputs(settings, workspace, "nobody")


def test_publish_takes_the_model_of_its_run_first(world: World) -> None:
    stage, settings, workspace = find_stage("publish"), world.shelf.settings(), world.shelf.workspace
    assert stage.other_inputs(settings, workspace) == {"model": world.ids[1]}
    assert stage.other_inputs(settings, workspace, world.ids[0]) == {"model": world.ids[0]}
    # The SASRec model does not fit these settings.
    assert stage.other_inputs(settings, workspace, world.ids[2]) == {"model": world.ids[1]}


def test_the_command_prints_the_same_as_json(world: World) -> None:
    command = [
        str(Path(sys.executable).parent / "learn-spark"),
        "models",
        "--config",
        str(world.shelf.config),
        "--json",
    ]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    rows = list_models(world.shelf.workspace)
    assert [(r["model_id"], r["validation"]) for r in json.loads(printed)] == [(r.model_id, r.validation) for r in rows]


def test_a_model_is_published_by_its_id(world: World) -> None:
    workspace = world.shelf.workspace
    assert usable_model(world.shelf.settings(), workspace) == world.ids[1]
    assert usable_model(world.shelf.settings(f"release.model={world.ids[0]}"), workspace) == world.ids[0]
    with pytest.raises(LearnSparkError, match=rf"no trained model 'nobody'; the newest are .*{world.ids[1]}"):
        usable_model(world.shelf.settings("release.model=nobody"), workspace)
    with pytest.raises(
        LearnSparkError, match=r"the sasrec model .* does not fit these settings, which name a learn tower"
    ):
        usable_model(world.shelf.settings(f"release.model={world.ids[2]}"), workspace)
    with pytest.raises(LearnSparkError, match="2024-01-01"):
        usable_model(world.shelf.settings(f"release.model={world.ids[0]}", "histories.as_of=2024-01-01"), workspace)
