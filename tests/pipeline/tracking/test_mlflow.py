"""A real MLflow server gets models, evaluations and releases; one that is gone or silent costs a run one warning."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from learn_spark.core.console import Reporter
from learn_spark.core.errors import SettingsError
from learn_spark.core.stages.observer import Observer
from learn_spark.core.stages.registry import find_stage
from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.runs import Run, all_runs
from learn_spark.features.ledger import LedgerRow, add_rows, ledger
from learn_spark.features.withdrawal import apply, plan_rollback
from learn_spark.pipeline.tracking.observers import observer_of, tell_of_releases
from tests.pipeline.tracking.gate import Gate
from tests.servers import mlflow_server
from tests.shelf import RIVAL, Shelf, reading

TRACKING = ("training.tracking=[tensorboard, mlflow]", "mlflow.timeout_seconds=30", "mlflow.experiment=shelf")


@dataclass(frozen=True)
class Place:
    """A shelf, the server, and the way to it."""

    shelf: Shelf
    server: str
    gate: Gate

    def overrides(self, *more: str) -> tuple[str, ...]:
        return (*RIVAL, *TRACKING, f"mlflow.uri=http://127.0.0.1:{self.gate.port}", *more)

    def observer(self, *more: str) -> Observer:
        return observer_of(self.shelf.settings(*self.overrides(*more)), self.shelf.workspace, Reporter())

    def run(self, stage: str, *more: str, observer: Observer | None = None) -> Run:
        """Run a stage as it is tracked."""
        observer = observer or self.observer(*more)
        return self.shelf.run(stage, *self.overrides(*more), observer=observer)[0]

    @property
    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self.server, self.server)

    def run_of(self, model: str | None) -> Any:
        """The only run of a model in MLflow."""
        experiment = self.client.get_experiment_by_name("shelf").experiment_id
        (found,) = self.client.search_runs([experiment], f"tags.`learn_spark.model_id` = '{model}'")
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("mlflow")
    with mlflow_server(folder) as url:
        gate = Gate(int(url.rpartition(":")[2]))
        yield Place(Shelf(folder / "shelf", reading()), url, gate)
        gate.close()


@pytest.fixture(scope="module")
def model(place: Place) -> str:
    """The id of a trained model, whose server was there."""
    made = place.run("train").model_id
    assert made is not None
    return made


def curve_of(place: Place, run: Any, metric: str) -> list[tuple[int, float]]:
    history = place.client.get_metric_history(run.info.run_id, metric)
    return sorted({(point.step, point.value) for point in history})


def logged(folder: Path, name: str) -> list[tuple[int, float]]:
    """The points of a model's log."""
    lines = (folder / "logs" / "steps.jsonl").read_text(encoding="utf-8").splitlines()
    return sorted({(point["step"], point[name]) for point in map(json.loads, lines) if name in point})


def test_a_model_is_a_run_with_settings_curve_figures_and_files(place: Place, model: str, tmp_path: Path) -> None:
    run, folder = place.run_of(model), place.shelf.workspace.root / "models" / model
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert run.info.status == "FINISHED"
    assert run.data.params["training.epochs"] == "2"
    assert run.data.params["tower.kind"] == "sasrec"
    assert run.data.tags["learn_spark.input.user_histories"] == manifest["inputs"]["user_histories"]
    for name, metric in (("loss", "loss"), ("validation NDCG@10", "validation/NDCG_at_10")):
        assert curve_of(place, run, metric) == logged(folder, name), metric
    assert run.data.metrics["model/validation/HR_at_5"] == manifest["validation"]["HR@5"]
    sent = Path(place.client.download_artifacts(run.info.run_id, "model", str(tmp_path)))
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    assert sorted(file.relative_to(sent).as_posix() for file in sent.rglob("*") if file.is_file()) == names
    assert hashlib.sha256((sent / "model.safetensors").read_bytes()).hexdigest() in manifest["files"].values()


def test_evaluations_slices_and_releases_belong_to_the_run_of_the_model(
    place: Place, model: str, tmp_path: Path
) -> None:
    evaluated = place.run("evaluate")
    run = place.run_of(model)
    figures = read_rows(place.shelf.workspace.table("evaluations"))
    for row in figures:
        name = f"{row['split']}/{row['method']}/{row['metric']}".replace("@", "_at_")
        assert run.data.metrics[name] == row["value"]
    slices = read_rows(place.shelf.workspace.table("evaluation_slices"))
    assert any(name.startswith("slices/test/sasrec/") for name in run.data.metrics)
    file = place.client.download_artifacts(run.info.run_id, f"evaluation/{evaluated.run_id}/slices.csv", str(tmp_path))
    with Path(file).open(encoding="utf-8") as lines:
        assert len(list(csv.DictReader(lines))) == len(slices)

    first, second = release("a" * 16, model, "run-1"), release("b" * 16, model, "run-2")
    for row in (first, second):
        add_rows(place.shelf.workspace, [row])
        place.observer().finished(find_stage("publish"), replace(evaluated, run_id=row.run_id))
    client = place.client
    named = {one: client.get_model_version_by_alias("learn-spark", f"release-{one * 16}") for one in "ab"}
    assert named["a"].version != named["b"].version
    assert {one.run_id for one in named.values()} == {run.info.run_id}
    assert named["b"].tags["learn_spark.release_number"] == "2"
    assert client.get_model_version_by_alias("learn-spark", "in-force").version == named["b"].version
    # A release that is published again is the same version; a rollback gives the alias to the one before.
    place.observer().finished(find_stage("publish"), replace(evaluated, run_id="run-2"))
    assert len(client.search_model_versions("name = 'learn-spark'")) == 2
    apply(place.shelf.workspace, plan_rollback(ledger(place.shelf.workspace)))
    place.observer().released()
    assert client.get_model_version_by_alias("learn-spark", "in-force").version == named["a"].version
    withdrawn = client.get_model_version("learn-spark", named["b"].version)
    assert withdrawn.tags["learn_spark.status"] == "withdrawn"


def release(release_id: str, model: str, run_id: str) -> LedgerRow:
    return LedgerRow(
        release_id=release_id,
        status="released",
        model_id=model,
        code_version="c",
        encoder_key="e",
        inputs={},
        outputs={"user_features": "3"},
        gate_results=None,
        metrics={},
        as_of=datetime(2024, 6, 1, tzinfo=UTC),
        run_id=run_id,
        note=None,
    )


class Interrupted(Observer):
    """An observer whose server changes its state when the training has begun."""

    def __init__(self, inner: Observer, gate: Gate, state: str) -> None:
        self._inner, self._gate, self._state = inner, gate, state

    @contextmanager
    def training(self, key: str, logs: Path, *, again: bool) -> Iterator[None]:
        with self._inner.training(key, logs, again=again):
            self._gate.be(self._state)
            yield

    def finished(self, stage: Any, run: Run) -> None:
        self._inner.finished(stage, run)


@pytest.mark.parametrize(("state", "seed"), [("gone", 11), ("silent", 12)])
def test_a_server_that_goes_away_costs_a_warning_and_gets_the_rest_later(
    place: Place, state: str, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    brief = (f"training.seed={seed}", "mlflow.timeout_seconds=1", "mlflow.seconds_between_points=0.05")
    observer = Interrupted(place.observer(*brief), place.gate, state)
    model = place.run("train", *brief, observer=observer).model_id
    folder = place.shelf.workspace.root / "models" / str(model)
    assert (folder / "manifest.json").is_file()
    place.run("evaluate", *brief, observer=observer)
    assert capsys.readouterr().out.count("warning: MLflow at http") == 1
    place.gate.be("open")
    evaluated = all_runs(place.shelf.workspace)[-1]
    place.observer().finished(find_stage("evaluate"), evaluated)
    there = place.run_of(model)
    assert curve_of(place, there, "loss") == logged(folder, "loss")
    assert there.info.status == "FINISHED"


def test_a_training_goes_where_its_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shelf = Shelf(tmp_path / "here", reading())
    with pytest.raises(SettingsError, match=r"neither mlflow\.uri nor MLFLOW_TRACKING_URI"):
        observer_of(shelf.settings("training.tracking=[mlflow]"), shelf.workspace, Reporter(quiet=True))
    # A rollback is never refused for it.
    tell_of_releases(shelf.settings("training.tracking=[mlflow]"), shelf.workspace, Reporter())
    assert (
        "warning: the release in force is not told elsewhere: training.tracking has mlflow" in capsys.readouterr().out
    )
    without, _ = shelf.run("train", *RIVAL, "training.epochs=1", "training.tracking=[]")
    logs = shelf.workspace.root / "models" / str(without.model_id) / "logs"
    assert [file.name for file in logs.iterdir()] == ["steps.jsonl"]
    with_board, _ = shelf.run("train", *RIVAL, "training.epochs=1", forced=True)
    assert with_board.outputs == without.outputs
